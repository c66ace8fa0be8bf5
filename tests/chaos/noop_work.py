"""What a no-op worker does in place of the pipeline: as its job's labels say. Loads no torch.

Importing this module gives the worker's tasks their other equipment; claim, lease, staging and commit stay real.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from ascribe.job import Phase
from ascribe.ledger.base import Claim
from ascribe.result import MEAN, Manifest
from ascribe.spec import JobSpec
from tests.support.ledger import manifest, spec
from worker import tasks
from worker.attempt import Equipment
from worker.progress import Reporter
from worker.staging import Staging

if TYPE_CHECKING:
    from worker.pipeline import Sink
    from worker.sharing import Crew

SLICE_SECONDS = 0.05
"""A sleep advances in steps of this: each is a place where a cancel or a lost lease is noticed."""


def noop_spec(
    base: str = "base",
    *,
    sleep_ms: int = 0,
    allocate_mb: int = 0,
    deaths: int = 0,
    result_bytes: int = 100,
    before_stage_ms: int = 0,
    before_commit_ms: int = 0,
) -> JobSpec:
    """A job for :func:`work`. In its first ``deaths`` attempts it kills the process that works on it.

    The last two are silent: nothing is told meanwhile, and the next word is a write of the result.
    """
    wishes = {
        "sleep_ms": sleep_ms,
        "allocate_mb": allocate_mb,
        "deaths": deaths,
        "result_bytes": result_bytes,
        "before_stage_ms": before_stage_ms,
        "before_commit_ms": before_commit_ms,
    }
    labels = {name: str(value) for name, value in wishes.items() if value}
    return spec(base, model={"base": base, "adapter": "adapter"}, labels=labels)


def signature(job_id: str, fence: int) -> bytes:
    """The beginning of a result: what the checker holds against the record."""
    return f"{job_id} {fence} ".encode()


def work(job: JobSpec, reporter: Reporter, sink: Sink, _crew: Crew) -> Manifest:
    """Sleep, allocate, die, stage: whatever of it the labels ask for."""
    assert isinstance(sink, Staging)
    wish = {name: int(value) for name, value in job.labels.items()}
    if "sleep_ms" in wish:
        _sleep(wish["sleep_ms"] / 1000, reporter)
    held = bytearray(wish.get("allocate_mb", 0) << 20)
    if sink.claim.attempt <= wish.get("deaths", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    del held
    time.sleep(wish.get("before_stage_ms", 0) / 1000)
    sink.stage(MEAN, [_result(sink.claim, wish.get("result_bytes", 0))])
    time.sleep(wish.get("before_commit_ms", 0) / 1000)
    return manifest(MEAN)


def _sleep(seconds: float, reporter: Reporter) -> None:
    steps = max(1, round(seconds / SLICE_SECONDS))
    with reporter.phase(Phase.SOLVING, steps):
        for _ in range(steps):
            time.sleep(seconds / steps)
            reporter.advance()


def _result(claim: Claim, size: int) -> bytes:
    return signature(claim.job_id, claim.fence).ljust(size, b".")


_real_equipment = tasks.equipment


@cache
def equipment() -> Equipment:
    return replace(_real_equipment(), work=work)


tasks.equipment = equipment
