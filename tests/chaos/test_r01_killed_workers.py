"""R1: workers are killed at random while they work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.chaos.bench import ChaosBench
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario


@dataclass(frozen=True, slots=True)
class Sizes:
    jobs: int
    kills: int
    workers: int
    bound_seconds: float = 60
    """In which every job must have ended after the last kill."""


def run(folder: Path, sizes: Sizes) -> Outcome:
    with ChaosBench(folder, workers=sizes.workers) as bench:
        for _ in range(sizes.jobs):
            bench.submit(noop_spec(sleep_ms=bench.random.randint(50, 200)))
        for number in range(sizes.kills):
            # Spread over the first 95 %, so that the last kill finds work too.
            bench.await_ended(round(sizes.jobs * 0.95 * (number + bench.random.random()) / sizes.kills), 300)
            bench.kill_any_worker()
        seconds = bench.checker.wait(sizes.bound_seconds)
        outcome = bench.checker.outcome()
    return outcome.beside(Outcome({"all ended after the last kill s": round(seconds, 1)}))


SCENARIO = Scenario(
    name="R1",
    title="1 000 jobs of 50-200 ms, worker groups SIGKILLed 100 times at random",
    must="0 lost, 0 duplicate commits",
    run=run,
    short=Sizes(jobs=40, kills=4, workers=2),
    long=Sizes(jobs=1000, kills=100, workers=4),
)


def test_killed_workers_lose_no_job_and_commit_none_twice(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == SCENARIO.short.jobs
    assert outcome.facts["recoveries"], "no kill hit a running job: nothing was tested"
