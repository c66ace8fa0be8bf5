"""Phases of a reporter: one inside another interrupts it, and neither's seconds or counts are the other's."""

from __future__ import annotations

import pytest

from ascribe.job import Phase, Progress
from worker import progress
from worker.progress import Reporter
from worker.ticks import tick


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _reporter() -> tuple[Reporter, list[Progress]]:
    seen: list[Progress] = []

    def keep(told: Progress) -> bool:
        seen.append(told)
        return False

    return Reporter(keep), seen


def test_seconds_of_an_inner_phase_are_not_counted_twice(clock: Clock) -> None:
    reporter, _ = _reporter()
    with reporter.phase(Phase.BUILDING_CURVATURE, 2):
        clock.now += 1
        with reporter.phase(Phase.CACHING_GRADIENTS, 10):
            clock.now += 10
            with reporter.phase(Phase.LOADING):
                clock.now += 100
            clock.now += 20
        clock.now += 2
        with reporter.phase(Phase.CACHING_GRADIENTS, 10):
            clock.now += 40
        clock.now += 4
    assert reporter.seconds == {"building_curvature": 7.0, "caching_gradients": 70.0, "loading": 100.0}
    assert sum(reporter.seconds.values()) == clock.now


def test_the_outer_phase_goes_on_where_it_was(clock: Clock) -> None:
    reporter, seen = _reporter()
    with reporter.phase(Phase.BUILDING_CURVATURE, 4):
        clock.now += 6
        reporter.advance(2, found=True)
        reporter.advance()
        with reporter.phase(Phase.CACHING_GRADIENTS, 100):
            assert (seen[-1].phase, seen[-1].done, seen[-1].total) == (Phase.CACHING_GRADIENTS, 0, 100)
            clock.now += 1000
            reporter.advance(50)
            assert seen[-1].eta_seconds == 1000
        assert (seen[-1].phase, seen[-1].done) == (Phase.CACHING_GRADIENTS, 100)
        clock.now += 1
        tick()
        assert (seen[-1].phase, seen[-1].done, seen[-1].total) == (Phase.BUILDING_CURVATURE, 3, 4)
        assert seen[-1].eta_seconds == 7, "one of four took 7 seconds of its own; what was found took none"
    assert (seen[-1].phase, seen[-1].fraction) == (Phase.BUILDING_CURVATURE, 1.0)
