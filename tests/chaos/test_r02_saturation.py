"""R2: workers are killed while there is more to do than they can, where plain Celery loses tasks."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.killing import Sizes, kill_workers_under_load
from tests.chaos.outcome import Scenario

SCENARIO = Scenario(
    name="R2",
    title="30 000 no-op jobs, worker groups SIGKILLed 40 times at saturation",
    must="0 lost, all ended within 60 s of the last kill",
    run=kill_workers_under_load,
    short=Sizes(jobs=300, kills=3, workers=2, longest_ms=0),
    long=Sizes(jobs=30_000, kills=40, workers=2, longest_ms=0),
)


def test_kills_at_saturation_lose_no_job(tmp_path: Path) -> None:
    outcome = SCENARIO.run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == SCENARIO.short.jobs
