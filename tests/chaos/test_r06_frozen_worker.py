"""R6: a worker stands still for longer than its lease, comes back, and writes as if nothing had happened."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ascribe.job import Job, JobState
from tests.chaos.bench import ChaosBench, Worker
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.faults.freezing import frozen
from tests.support.waiting import await_that

WORK_MS = 1500
PATIENCE_SECONDS = 60.0
LATE_WRITES = {
    "progress": noop_spec(sleep_ms=WORK_MS),
    "staging": noop_spec(before_stage_ms=WORK_MS),
    "commit": noop_spec(before_commit_ms=WORK_MS),
}
"""What a worker does first when it wakes up: by job."""


@dataclass(frozen=True, slots=True)
class Sizes:
    while_running: int
    """Rounds for each kind of late write in which another is at the job by then: the fence alone tells them apart."""
    after_end: int
    """Rounds for each kind in which the job has ended by then."""


def run(folder: Path, sizes: Sizes) -> Outcome:
    broken: list[str] = []
    refused = dict.fromkeys(LATE_WRITES, 0)
    with ChaosBench(folder, workers=2) as bench:
        until_ended = [False] * sizes.while_running + [True] * sizes.after_end
        for kind, ended in itertools.product(LATE_WRITES, until_ended):
            job_id, sleeper = freeze_at_work(bench, kind, until_ended=ended)
            await_refused(bench, job_id, sleeper)
            found = list(wrong(bench, bench.ledger.get(job_id)))
            broken += (f"late {kind}: {what}" for what in found)
            refused[kind] += not found
        bench.checker.wait(PATIENCE_SECONDS)
        outcome = bench.checker.outcome()
    return outcome.beside(Outcome({f"late {kind} refused": count for kind, count in refused.items()}, tuple(broken)))


def freeze_at_work(bench: ChaosBench, kind: str, *, until_ended: bool) -> tuple[str, Worker]:
    """A job whose first worker stood still until another had begun the second attempt, or had ended it."""
    while True:
        job_id = bench.submit(LATE_WRITES[kind])
        holder = await_begun(bench, job_id)
        worker = next(worker for worker in bench.workers if holder in worker.claims_as)
        with frozen(worker.process.pid):
            if bench.ledger.get(job_id).status is JobState.RUNNING:
                await_second_attempt(bench, job_id, ended=until_ended)
                return job_id, worker
        # This machine was so busy that the job ended first: another one.


def await_begun(bench: ChaosBench, job_id: str) -> str:
    """Which worker has begun the first attempt."""
    await_that(lambda: bench.ledger.get(job_id).attempts, f"{job_id} was begun")
    return bench.ledger.get(job_id).attempts[0].worker


def await_second_attempt(bench: ChaosBench, job_id: str, *, ended: bool) -> None:
    def reached() -> bool:
        job = bench.ledger.get(job_id)
        return job.status.terminal if ended else len(job.attempts) == 2

    await_that(reached, f"{job_id} was taken from the worker that stood still")


def await_refused(bench: ChaosBench, job_id: str, sleeper: Worker) -> None:
    await_that(lambda: gave_up(bench, sleeper, job_id), f"what worker {sleeper.number} wrote late was refused")
    await_that(lambda: bench.ledger.get(job_id).status.terminal, f"{job_id} ended")


def gave_up(bench: ChaosBench, worker: Worker, job_id: str) -> bool:
    """Whether the worker's log says that its attempt at the job came to nothing."""
    lines = (bench.logs / f"worker-{worker.number}.log").read_text().splitlines()
    return any(job_id in line and '"outcome": "lost"' in line for line in lines)


def wrong(bench: ChaosBench, job: Job) -> Iterator[str]:
    outcomes = [attempt.outcome for attempt in job.attempts]
    if outcomes != ["lost", "succeeded"]:
        yield f"the attempts of {job.id} ended as {outcomes}"
    if len({attempt.worker for attempt in job.attempts}) != 2:
        yield f"{job.id} was finished by the worker that had lost it"
    if len(list(bench.server.scan_iter(f"*:scores:{job.id}:*"))) != 1:
        yield f"{job.id} has scores under a fence that did not commit"


SCENARIO = Scenario(
    name="R6",
    title="workers SIGSTOPped for longer than their lease, then SIGCONT",
    must="every late write is refused by the fence; each job ends once, by another worker",
    run=run,
    short=Sizes(while_running=1, after_end=0),
    long=Sizes(while_running=10, after_end=5),
)


def test_what_a_frozen_worker_writes_late_is_refused(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert {outcome.facts[f"late {kind} refused"] for kind in LATE_WRITES} == {1}
