"""What can be known about a spec before a worker sees it: paths, checkpoint headers, inline rows, limits."""

from __future__ import annotations

from dataclasses import dataclass

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.result import vector_names
from ascribe.settings import ServiceSettings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.paths import resolve
from ascribe.sources.rows import Labels, Rows, read_rows
from ascribe.spec import DatasetSpec, InlineSource, JobSpec


@dataclass(frozen=True, slots=True)
class Checked:
    """``train`` and ``validation`` are None where the rows were left in their file."""

    checkpoint: Checkpoint
    train: Rows | None
    validation: Rows | None


def check(spec: JobSpec, settings: ServiceSettings, *, read_files: bool) -> Checked:
    """Refuse what a worker would refuse later. ``read_files``: read the rows of files too, not only inline ones.

    Raises InvalidInput and what is below it.
    """
    checkpoint = inspect_checkpoint(settings.data_root, spec.model, spec.parameters.select)
    labels = Labels(checkpoint.num_labels, checkpoint.label_names)
    train = _rows(spec.train, "/train", labels, settings, read_files=read_files)
    validation = _rows(spec.validation, "/validation", labels, settings, read_files=read_files)
    if train:
        # Where the validation rows are not counted yet there is at least one.
        _check_cells(spec, len(train), len(validation) if validation else 1, settings.max_cells)
    return Checked(checkpoint, train, validation)


def _rows(
    dataset: DatasetSpec, pointer: str, labels: Labels, settings: ServiceSettings, *, read_files: bool
) -> Rows | None:
    if not read_files and not isinstance(dataset.source, InlineSource):
        path = resolve(settings.data_root, dataset.source.path, f"{pointer}/source/path")
        if not path.is_file():
            raise InvalidInput.at(f"{pointer}/source/path", "not_a_file", "must be a file of JSON lines")
        return None
    return read_rows(
        settings.data_root,
        dataset,
        pointer,
        labels,
        max_rows=settings.max_rows,
        max_line_bytes=settings.max_line_bytes,
    )


def _check_cells(spec: JobSpec, train_rows: int, validation_rows: int, max_cells: int) -> None:
    vectors = len(vector_names(spec.output, validation_rows))
    if vectors * train_rows > max_cells:
        raise LimitExceeded.at(
            "/output/per_validation_row" if spec.output.per_validation_row else "/train/limit",
            "limit_exceeded",
            f"{vectors} vectors of {train_rows} scores are over the limit of {max_cells} scores a job: "
            "leave out the scores per validation row, or limit the rows",
        )
