"""R3: jobs that kill the process that works on them, once or every time, and jobs that want too much memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ascribe.errors import OutOfMemory, WorkerLost
from ascribe.job import Job, JobState
from tests.chaos.bench import ChaosBench, group_members
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.faults.limits import memory_ends_at

MAX_ATTEMPTS = 3
MEMORY_BYTES = 4 << 30
"""Address space of a worker process; an idle one has some hundred MB."""
TOO_MANY_MB = 8 << 10
BOUND_SECONDS = 300.0
"""Every death costs its worker a new child, two seconds of a small machine."""
KINDS = {
    "well": noop_spec(sleep_ms=20),
    "killed once": noop_spec(deaths=1),
    "poison": noop_spec(deaths=10 * MAX_ATTEMPTS),
    "greedy": noop_spec(allocate_mb=TOO_MANY_MB),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    well: int
    bad: int
    """Of each other kind, spread among the well ones."""


def run(folder: Path, sizes: Sizes) -> Outcome:
    with ChaosBench(folder, workers=2, env={"ASCRIBE_MAX_ATTEMPTS": str(MAX_ATTEMPTS)}) as bench:
        processes = [pid for worker in bench.workers for pid in group_members(worker.process.pid)]
        with memory_ends_at(MEMORY_BYTES, processes):
            kinds = {bench.submit(KINDS[kind]): kind for kind in mixed(sizes, bench)}
            bench.checker.wait(BOUND_SECONDS)
        outcome = bench.checker.outcome()
        jobs = [(kind, bench.ledger.get(job_id)) for job_id, kind in kinds.items()]
    return outcome.beside(Outcome(told(jobs), tuple(wrong(jobs))))


def mixed(sizes: Sizes, bench: ChaosBench) -> list[str]:
    kinds = ["well"] * sizes.well + [kind for kind in KINDS if kind != "well"] * sizes.bad
    bench.random.shuffle(kinds)
    return kinds


def told(jobs: Iterable[tuple[str, Job]]) -> dict[str, int]:
    """How many ended as they should, by kind."""
    counts = dict.fromkeys(KINDS, 0)
    for kind, job in jobs:
        counts[kind] += as_it_should(kind, job)
    return {f"{kind}, as it should": count for kind, count in counts.items()}


def wrong(jobs: Iterable[tuple[str, Job]]) -> Iterator[str]:
    for kind, job in jobs:
        if not as_it_should(kind, job):
            attempts = [attempt.outcome for attempt in job.attempts]
            yield f"{kind}: {job.id} {job.status} {job.error.code if job.error else ''} after attempts {attempts}"


def as_it_should(kind: str, job: Job) -> bool:
    outcomes = [attempt.outcome for attempt in job.attempts]
    code = job.error.code if job.error else None
    expected = {
        "well": (JobState.SUCCEEDED, None, ["succeeded"]),
        "killed once": (JobState.SUCCEEDED, None, ["lost", "succeeded"]),
        "poison": (JobState.FAILED, WorkerLost.code, ["lost"] * MAX_ATTEMPTS),
        "greedy": (JobState.FAILED, OutOfMemory.code, ["failed"]),
    }
    return (job.status, code, outcomes) == expected[kind]


SCENARIO = Scenario(
    name="R3",
    title="jobs that SIGKILL the pool's child, once or every time, and jobs that run out of memory",
    must="attempts stop at the limit, then `failed: worker_lost` with their history; others unaffected",
    run=run,
    short=Sizes(well=20, bad=1),
    long=Sizes(well=500, bad=20),
)


def test_a_job_that_kills_its_workers_ends_and_harms_no_other(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["poison, as it should"] == outcome.facts["greedy, as it should"] == SCENARIO.short.bad
