"""From a spec to what the numerics need: checkpoint, rows, model, and the key their gradients are kept under."""

from __future__ import annotations

from dataclasses import dataclass

from ascribe.errors import InvalidInput, Problem
from ascribe.fingerprint import gradient_fingerprint
from ascribe.limits import check_cells, check_gauss_newton, check_model, check_solutions
from ascribe.settings import WorkerSettings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.rows import Labels, Rows, labels_of, read_rows
from ascribe.spec import JobSpec, QueryOf
from worker.completions import CutCompletions, target_texts
from worker.environment import versions
from worker.models import ModelKey


@dataclass(frozen=True, slots=True)
class Inputs:
    """A job's checked inputs. ``key`` names the model as loaded; hashes are of the files and rows as read.

    ``tokens``: of every validation row, where they are to be scored one by one; else empty.
    """

    checkpoint: Checkpoint
    key: ModelKey
    labels: Labels | None
    train: Rows
    validation: Rows
    tokens: tuple[tuple[str, ...], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def token_counts(self) -> tuple[int, ...]:
        return tuple(map(len, self.tokens))


def load_inputs(spec: JobSpec, settings: WorkerSettings) -> Inputs:
    """Inspect the checkpoint, read both datasets, hash everything.

    Raises:
        InvalidInput: and its subclasses, with pointers into the spec or the rows; for a query also where the model or
            the train rows are not those of the job it asks about.
        LimitExceeded: more rows, tokens, parameters or scores than this server takes.
    """
    checkpoint = inspect_checkpoint(settings.data_root, spec.model, spec.parameters, allow_gguf=settings.allow_gguf)
    check_model(spec, checkpoint, settings)
    labels = labels_of(checkpoint)
    cut = CutCompletions(checkpoint, spec.model)
    train = cut.leave_out(read_rows(settings, spec.train, "/train", labels), "/train")
    validation = cut.leave_out(read_rows(settings, spec.validation, "/validation", labels), "/validation")
    tokens = target_texts(validation, checkpoint, spec.model.max_length) if spec.output.per_token else ()
    counts = tuple(map(len, tokens))
    check_cells(spec, len(train), len(validation), settings, counts)
    check_solutions(spec, checkpoint, len(validation), settings, counts)
    check_gauss_newton(spec, checkpoint, len(train), settings)
    key = ModelKey(
        base_sha256=checkpoint.base_sha256(),
        adapter_sha256=checkpoint.adapter_sha256(),
        dtype=spec.model.dtype,
        attention=settings.attention,
        device=settings.device,
    )
    if spec.query_of is not None:
        _check_unchanged(spec.query_of, key, train)
    return Inputs(checkpoint, key, labels, train, validation, tokens, tuple(cut.warnings))


def _check_unchanged(asked: QueryOf, key: ModelKey, train: Rows) -> None:
    """Raises InvalidInput: the job asked about had another model or other train rows than are there now."""
    found = {
        "/model/base": (asked.base_sha256, key.base_sha256),
        "/model/adapter": (asked.adapter_sha256, key.adapter_sha256),
        "/train": (asked.train_sha256, train.sha256),
    }
    message = "changed since the job that is asked about: submit a job of its own instead of a query"
    changed = [Problem(pointer, "changed", message) for pointer, (then, now) in found.items() if then != now]
    if changed:
        raise InvalidInput(f"{', '.join(problem.pointer for problem in changed)}: {message}", errors=changed)


def fingerprint_of(rows: Rows, inputs: Inputs, spec: JobSpec, settings: WorkerSettings, of: str = "loss") -> str:
    return gradient_fingerprint(
        base_sha256=inputs.key.base_sha256,
        adapter_sha256=inputs.key.adapter_sha256,
        rows_sha256=rows.sha256,
        max_length=spec.model.max_length,
        dtype=spec.model.dtype,
        blocks=inputs.checkpoint.block_keys,
        attention=settings.attention,
        token_budget=settings.token_budget,
        shard_rows=settings.shard_rows,
        device=settings.device,
        versions=versions(),
        of=of,
    )
