"""Workers killed at random while they work: what R1 and R2 do, with jobs of other kinds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.bench import ChaosBench
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Sizes:
    jobs: int
    kills: int
    workers: int
    longest_ms: int
    """Jobs sleep between a quarter of this and this."""
    bound_seconds: float = 60
    """In which every job must have ended after the last kill."""


def kill_workers_under_load(folder: Path, sizes: Sizes) -> Outcome:
    """Submit all jobs while workers are killed, the kills spread over the work."""
    with ChaosBench(folder, workers=sizes.workers) as bench, ThreadPoolExecutor(1) as submitting:
        began = time.monotonic()
        naps = [bench.random.randint(sizes.longest_ms // 4, sizes.longest_ms) for _ in range(sizes.jobs)]
        submitted = submitting.submit(lambda: [bench.submit(noop_spec(sleep_ms=nap)) for nap in naps])
        for number in range(sizes.kills):
            # Over the first 95 %, so that the last kill finds work too.
            bench.await_ended(round(sizes.jobs * 0.95 * (number + bench.random.random()) / sizes.kills), 600)
            bench.kill_any_worker()
        submitted.result()
        after_last_kill = bench.checker.wait(sizes.bound_seconds)
        seconds = time.monotonic() - began
        outcome = bench.checker.outcome()
    rate = sizes.jobs / seconds
    return outcome.beside(
        Outcome({"ended s after the last kill": round(after_last_kill, 1), "jobs/s in all": round(rate, 1)})
    )
