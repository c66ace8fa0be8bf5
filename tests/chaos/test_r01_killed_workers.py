"""R1: workers are killed at random while they work."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.killing import Sizes, kill_workers_under_load
from tests.chaos.outcome import Scenario

SCENARIO = Scenario(
    name="R1",
    title="1 000 jobs of 50-200 ms, worker groups SIGKILLed 100 times at random",
    must="0 lost, 0 duplicate commits",
    run=kill_workers_under_load,
    short=Sizes(jobs=40, kills=4, workers=2, longest_ms=200),
    long=Sizes(jobs=1000, kills=100, workers=4, longest_ms=200),
)


def test_killed_workers_lose_no_job_and_commit_none_twice(tmp_path: Path) -> None:
    outcome = SCENARIO.run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == SCENARIO.short.jobs
    assert outcome.facts["recoveries"], "no kill hit a running job: nothing was tested"
