"""``POST /v1/jobs:validate``: every check that can be made without a model in memory, and what would run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ascribe.errors import LimitExceeded
from ascribe.fingerprint import gradient_fingerprint
from ascribe.ledger.base import Ledger, WorkerInfo
from ascribe.limits import check_solutions
from ascribe.planning.batches import Batching, Lengths
from ascribe.planning.choose import plan
from ascribe.planning.from_spec import choice_of, problem_of, with_solver
from ascribe.planning.memory import Estimate
from ascribe.result import vector_names
from ascribe.settings import ServiceSettings
from ascribe.sources.checkpoints import Checkpoint, gradient_bytes
from ascribe.sources.rows import Rows
from ascribe.spec import AutoSolver, JobSpec
from service.jobs.checks import check, expected
from service.jobs.schemas import BlockPlan, DatasetPlan, MemoryPlan, SolvePlan, Validation
from service.methods.operations import APPROXIMATE, note_of


def validate(spec: JobSpec, *, ledger: Ledger, settings: ServiceSettings) -> Validation:
    """Raises InvalidInput as submitting would, and for what only reading all rows shows."""
    checked = check(spec, settings, read_files=True)
    assert checked.train is not None
    assert checked.validation is not None
    checkpoint, workers = checked.checkpoint, [info for info in ledger.workers() if info.queue == spec.queue]
    cache = _CachePrediction(spec, checkpoint, ledger, workers)
    train, validation = cache.plan(checked.train, kept=spec.gradients == "cached"), cache.plan(checked.validation)
    tokens = _tokens(spec, checked.validation)
    solving = _plan(spec, checkpoint, train.rows, validation.rows + tokens, settings)
    solved = spec.model_copy(update={"solver": solving.solver})
    expects = expected(solved, checkpoint, checked.train, checked.validation, settings, _batching(workers))
    vectors = len(vector_names(spec.output, validation.rows, spec.damping_count)) + tokens * spec.damping_count
    return Validation(
        train=train,
        validation=validation,
        labels=checkpoint.label_names,
        num_labels=checkpoint.num_labels,
        parameters=checkpoint.parameters,
        blocks=tuple(BlockPlan(name=b.name, rank=b.rank, long_side=b.long_side) for b in checkpoint.blocks),
        gradient_bytes=train.gradient_bytes + validation.gradient_bytes,
        memory=_memory(expects) if spec.queue == "cpu" else None,
        disk_bytes=expects.disk,
        vectors=vectors,
        cells=vectors * train.rows,
        plan=solving,
        workers=len(workers),
        warnings=(
            *checkpoint.warnings,
            *_warnings(spec, checked.train, checkpoint, workers),
            *_warnings_of_tokens(spec, checkpoint, vectors * train.rows, validation.rows + tokens, settings),
        ),
    )


def _plan(
    spec: JobSpec, checkpoint: Checkpoint, train_rows: int, questions: int, settings: ServiceSettings
) -> SolvePlan:
    """Raises LimitExceeded: ``auto`` finds no solver for it."""
    problem = problem_of(
        spec,
        checkpoint.blocks,
        train_rows=train_rows,
        questions=questions,
        classes=checkpoint.num_labels,
        settings=settings,
    )
    choice = None
    if isinstance(spec.solver, AutoSolver):
        choice = choice_of(plan(problem))
        spec = with_solver(spec, choice.pick)
    else:
        with suppress(LimitExceeded):  # of no concern to a job that names its solver
            choice = choice_of(plan(problem))
    return SolvePlan(
        curvature=spec.curvature,
        damping=spec.damping,
        solver=spec.solver,
        choice=choice,
        exact=spec.solver.kind not in APPROXIMATE,
        note=note_of(spec.curvature.kind, spec.solver.kind),
    )


def _tokens(spec: JobSpec, validation: Rows) -> int:
    """About how many are scored: no tokenizer is at hand."""
    if not spec.output.per_token:
        return 0
    return Lengths.of(validation, max_length=spec.model.max_length, shard_rows=len(validation)).targets


def _batching(workers: list[WorkerInfo]) -> Batching | None:
    """Of the worker with the largest batches; None: nobody is there to ask."""
    found = [Batching(worker.token_budget, worker.shard_rows, worker.attention) for worker in workers]
    return max(found, key=lambda batching: batching.token_budget, default=None)


def _memory(expects: Estimate) -> MemoryPlan:
    return MemoryPlan(
        peak_bytes=expects.peak,
        needed_bytes=expects.needed,
        least_bytes=expects.least,
        parts=dict(expects.parts),
    )


class _CachePrediction:
    """Asks the ledger, for every live worker of the queue, whether gradients under its fingerprint were announced."""

    def __init__(self, spec: JobSpec, checkpoint: Checkpoint, ledger: Ledger, workers: list[WorkerInfo]) -> None:
        self._spec, self._checkpoint, self._ledger, self._workers = spec, checkpoint, ledger, workers
        # Reading whole checkpoints to hash them is worth it only where there is somebody to ask.
        self._hashes = (checkpoint.base_sha256(), checkpoint.adapter_sha256()) if workers else ("", "")

    def plan(self, rows: Rows, *, kept: bool = True) -> DatasetPlan:
        return DatasetPlan(
            rows=len(rows),
            gradient_bytes=gradient_bytes(len(rows), self._checkpoint) if kept else 0,
            cached_rows=max((self._announced(rows, worker) for worker in self._workers), default=None),
        )

    def _announced(self, rows: Rows, worker: WorkerInfo) -> int:
        base, adapter = self._hashes
        key = gradient_fingerprint(
            base_sha256=base,
            adapter_sha256=adapter,
            rows_sha256=rows.sha256,
            max_length=self._spec.model.max_length,
            dtype=self._spec.model.dtype,
            blocks=self._checkpoint.block_keys,
            attention=worker.attention,
            token_budget=worker.token_budget,
            shard_rows=worker.shard_rows,
            device=worker.device,
            versions=worker.versions,
        )
        return min(self._ledger.announced_gradients(key) or 0, len(rows))


def _warnings(spec: JobSpec, train: Rows, checkpoint: Checkpoint, workers: list[WorkerInfo]) -> list[str]:
    warnings = []
    if not workers:
        warnings.append(f"no worker of the queue '{spec.queue}' is alive: the job would wait until one comes")
    absent = checkpoint.num_labels - len(set(train.labels))
    if absent and train.completions is None:
        warnings.append(f"{absent} of the model's {checkpoint.num_labels} labels do not occur in the train rows")
    return warnings


def _warnings_of_tokens(
    spec: JobSpec, checkpoint: Checkpoint, cells: int, questions: int, settings: ServiceSettings
) -> Iterator[str]:
    """Their number is an estimate, so that a limit that it is over is no reason to refuse the job here."""
    if not spec.output.per_token:
        return
    if cells > settings.max_cells:
        yield f"scores by token would be about {cells} in all, over the limit max_cells of {settings.max_cells}"
    try:
        check_solutions(spec, checkpoint, questions, settings)
    except LimitExceeded as error:
        yield f"with about as many tokens as the texts seem to have, {error.detail}"
