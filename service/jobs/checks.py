"""What can be known about a spec before a worker sees it: paths, checkpoint headers, inline rows, limits."""

from __future__ import annotations

from dataclasses import dataclass

from ascribe.limits import check_cells, check_fits, check_gauss_newton, check_model, check_solutions
from ascribe.planning.batches import Batching, Lengths
from ascribe.planning.memory import Estimate, estimate
from ascribe.settings import ServiceSettings, WorkerSettings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.locate import check_there
from ascribe.sources.rows import Labels, Rows, labels_of, read_rows
from ascribe.spec import DatasetSpec, InlineSource, JobSpec

_FIELDS = WorkerSettings.model_fields
_DEFAULT = Batching(*(_FIELDS[name].default for name in ("token_budget", "shard_rows", "attention")))


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
    checkpoint = inspect_checkpoint(settings.data_root, spec.model, spec.parameters, allow_gguf=settings.allow_gguf)
    check_model(spec, checkpoint, settings)
    labels = labels_of(checkpoint)
    train = _rows(spec.train, "/train", labels, settings, read_files=read_files)
    validation = _rows(spec.validation, "/validation", labels, settings, read_files=read_files)
    if validation:
        check_solutions(spec, checkpoint, len(validation), settings)
    if train:
        # Where the validation rows are not counted yet there is at least one.
        check_cells(spec, len(train), len(validation) if validation else 1, settings)
        check_gauss_newton(spec, checkpoint, len(train), settings)
    if settings.max_memory_bytes is not None and spec.queue == "cpu":
        check_fits(expected(spec, checkpoint, train, validation, settings), settings.max_memory_bytes)
    return Checked(checkpoint, train, validation)


def _rows(
    dataset: DatasetSpec, pointer: str, labels: Labels | None, settings: ServiceSettings, *, read_files: bool
) -> Rows | None:
    if not read_files and not isinstance(dataset.source, InlineSource):
        check_there(settings, dataset.source, f"{pointer}/source")
        return None
    return read_rows(settings, dataset, pointer, labels)


def expected(
    spec: JobSpec,
    checkpoint: Checkpoint,
    train: Rows | None,
    validation: Rows | None,
    settings: ServiceSettings,
    batching: Batching | None = None,
) -> Estimate:
    """Memory and disk of the job; the least that they can be where rows were not read. Without ``batching`` that of a
    worker whose settings are the defaults."""
    batching = batching or _DEFAULT
    lengths = [
        Lengths.of(rows, max_length=spec.model.max_length, shard_rows=batching.shard_rows)
        if rows
        else Lengths.unknown()
        for rows in (train, validation)
    ]
    return estimate(spec, checkpoint, *lengths, batching=batching, settings=settings)
