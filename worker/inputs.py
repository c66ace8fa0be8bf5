"""From a spec to what the numerics need: checkpoint, rows, model, and the key their gradients are kept under."""

from __future__ import annotations

from dataclasses import dataclass

from ascribe.errors import LimitExceeded
from ascribe.fingerprint import gradient_fingerprint
from ascribe.result import vector_names
from ascribe.settings import WorkerSettings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.rows import Labels, Rows, read_rows
from ascribe.spec import JobSpec
from worker.environment import versions
from worker.models import ModelKey


@dataclass(frozen=True, slots=True)
class Inputs:
    """A job's checked inputs. ``key`` names the model as loaded; hashes are of the files and rows as read."""

    checkpoint: Checkpoint
    key: ModelKey
    labels: Labels
    train: Rows
    validation: Rows


def load_inputs(spec: JobSpec, settings: WorkerSettings) -> Inputs:
    """Inspect the checkpoint, read both datasets, hash everything.

    Raises:
        InvalidInput: and its subclasses, with pointers into the spec or the rows.
        LimitExceeded: more rows or more score cells than this server takes.
    """
    checkpoint = inspect_checkpoint(settings.data_root, spec.model, spec.parameters.select)
    labels = Labels(checkpoint.num_labels, checkpoint.label_names)
    limits = {"max_rows": settings.max_rows, "max_line_bytes": settings.max_line_bytes}
    train = read_rows(settings.data_root, spec.train, "/train", labels, **limits)
    validation = read_rows(settings.data_root, spec.validation, "/validation", labels, **limits)
    cells = len(vector_names(spec.output, len(validation))) * len(train)
    if cells > settings.max_cells:
        message = f"the job would store {cells} scores; the limit is {settings.max_cells}: use fewer rows"
        raise LimitExceeded.at("/output/per_validation_row", "limit_exceeded", message)
    key = ModelKey(
        base_sha256=checkpoint.base_sha256(),
        adapter_sha256=checkpoint.adapter_sha256(),
        dtype=spec.model.dtype,
        attention=settings.attention,
        device=settings.device,
    )
    return Inputs(checkpoint, key, labels, train, validation)


def fingerprint_of(rows: Rows, inputs: Inputs, spec: JobSpec, settings: WorkerSettings) -> str:
    return gradient_fingerprint(
        base_sha256=inputs.key.base_sha256,
        adapter_sha256=inputs.key.adapter_sha256,
        rows_sha256=rows.sha256,
        max_length=spec.model.max_length,
        dtype=spec.model.dtype,
        select=spec.parameters.select,
        attention=settings.attention,
        token_budget=settings.token_budget,
        shard_rows=settings.shard_rows,
        device=settings.device,
        versions=versions(),
    )
