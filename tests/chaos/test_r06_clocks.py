"""R6: hosts that do not agree on the time. A lease is the server's clock alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ascribe.job import Job
from tests.chaos.bench import ChaosBench
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.faults.clock import VARIABLE

MONTH_SECONDS = 30 * 86400
LONGER_THAN_A_LEASE_MS = 3000
BOUND_SECONDS = 60.0
TAKEN = "ascribe:unacked_index"
"""Where kombu keeps the messages that are being worked on, by the time of the worker that took them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    jobs: int
    kills: int
    long_jobs: int = 2


def skewed(number: int) -> dict[str, str]:
    """The first worker is a month ahead of the server, the second a month behind, and so on."""
    return {VARIABLE: str(MONTH_SECONDS if number % 2 else -MONTH_SECONDS)}


def run(folder: Path, sizes: Sizes) -> Outcome:
    began = time.time()
    with ChaosBench(folder, workers=2, worker_app="tests.chaos.skewed_worker", worker_env=skewed) as bench:
        for _ in range(sizes.long_jobs):
            bench.submit(noop_spec(sleep_ms=LONGER_THAN_A_LEASE_MS))
        apart = await_both(bench)
        bench.await_ended(sizes.long_jobs, BOUND_SECONDS)
        undisturbed = [bench.ledger.get(job_id) for job_id in bench.checker.accepted]
        for _ in range(sizes.jobs):
            bench.submit(noop_spec(sleep_ms=100))
        for number in range(sizes.kills):
            bench.await_ended(sizes.long_jobs + round(sizes.jobs * number / sizes.kills) + 1, BOUND_SECONDS)
            bench.kill_any_worker()
        bench.checker.wait(BOUND_SECONDS)
        jobs = [bench.ledger.get(job_id) for job_id in bench.checker.accepted]
        outcome = bench.checker.outcome()
    taken_away = sum(job.attempt > 1 for job in undisturbed)
    broken = [f"{taken_away} jobs were taken from workers that were well"] if taken_away else []
    broken += wrong_times(jobs, began)
    return outcome.beside(Outcome({"clocks apart days": round(apart)}, tuple(broken)))


def await_both(bench: ChaosBench) -> float:
    """Days between the clocks by which the workers told the broker what they have taken from it."""
    deadline = time.monotonic() + BOUND_SECONDS
    while time.monotonic() < deadline:
        taken = bench.server.zrange(TAKEN, 0, -1, withscores=True)
        if len(taken) > 1:
            return (float(taken[-1][1]) - float(taken[0][1])) / 86400
        time.sleep(0.02)
    raise TimeoutError


def wrong_times(jobs: list[Job], began: float) -> Iterator[str]:
    """Times in records that are not of this test, as the server's clock, which is ours, has it."""
    for job in jobs:
        times = [job.created_at, job.finished_at, *(attempt.started_at for attempt in job.attempts)]
        if not all(at and began - 1 <= at.timestamp() <= time.time() + 1 for at in times):
            yield f"{job.id} has a time that a worker's clock made"


SCENARIO = Scenario(
    name="R6 clocks",
    title="workers whose clocks are a month ahead and a month behind, and are SIGKILLed",
    must="leases go by the server's clock: none ends early, none stays; 0 lost, 0 duplicate commits",
    run=run,
    short=Sizes(jobs=20, kills=1),
    long=Sizes(jobs=300, kills=20),
)


def test_hosts_need_not_agree_on_the_time(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == outcome.facts["accepted"]
    assert outcome.facts["clocks apart days"] == 2 * MONTH_SECONDS // 86400, "the clocks were right: nothing was tested"
