"""What is settled before a job loads anything: the solver that ``auto`` takes, and the memory and disk it will need."""

from __future__ import annotations

from dataclasses import dataclass

from ascribe.limits import check_fits
from ascribe.planning.batches import Batching, Lengths
from ascribe.planning.choose import plan
from ascribe.planning.from_spec import caches_rows, choice_of, problem_of, with_solver
from ascribe.planning.memory import Estimate, estimate
from ascribe.result import Choice
from ascribe.settings import WorkerSettings
from ascribe.spec import AutoSolver, JobSpec
from worker import memory
from worker.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Planned:
    """The spec with a solver that has a name, and what decided it."""

    spec: JobSpec
    choice: Choice | None
    cached_rows: bool
    expected: Estimate


def plan_job(spec: JobSpec, inputs: Inputs, settings: WorkerSettings) -> Planned:
    """Raises LimitExceeded: no solver can do it. DoesNotFit: it needs more memory than this worker has."""
    blocks, rows, classes = inputs.checkpoint.blocks, len(inputs.train), inputs.checkpoint.num_labels
    cached_rows = caches_rows(spec, blocks, train_rows=rows, classes=classes, settings=settings)
    if not isinstance(spec.solver, AutoSolver):
        return Planned(spec, None, cached_rows, _expected(spec, inputs, settings))
    asked = len(inputs.validation) + sum(inputs.token_counts)
    problem = problem_of(spec, blocks, train_rows=rows, questions=asked, classes=classes, settings=settings)
    choice = choice_of(plan(problem))
    spec = with_solver(spec, choice.pick)
    return Planned(spec, choice, cached_rows, _expected(spec, inputs, settings))


def _expected(spec: JobSpec, inputs: Inputs, settings: WorkerSettings) -> Estimate:
    """Memory and disk of the job. Raises DoesNotFit."""
    expected = estimate(
        spec,
        inputs.checkpoint,
        *(
            Lengths.of(rows, max_length=spec.model.max_length, shard_rows=settings.shard_rows)
            for rows in (inputs.train, inputs.validation)
        ),
        batching=Batching(settings.token_budget, settings.shard_rows, settings.attention),
        settings=settings,
    )
    if settings.device == "cpu":
        check_fits(expected, settings.max_memory_bytes or memory.there_bytes())
    return expected
