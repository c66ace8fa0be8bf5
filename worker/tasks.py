"""The one task: claim the job, run the pipeline, commit. Nothing numerical, and safe to run twice.

torch is imported when the first job arrives, so a worker is ready in under a second.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import stamina
from celery import shared_task

from ascribe.broker import RUN_TASK
from ascribe.errors import AscribeError, InternalError, OutOfMemory, QueueUnavailable
from ascribe.job import JobError, Phase, Progress
from ascribe.ledger.base import Claim, LeaseLost, Ledger
from ascribe.ledger.heartbeat import Heartbeat
from ascribe.ledger.opening import open_ledger
from ascribe.logs import bound
from ascribe.settings import WorkerSettings
from worker.environment import worker_name
from worker.progress import Cancelled, Reporter

if TYPE_CHECKING:
    from worker.pipeline import Bench

log = logging.getLogger(__name__)


@shared_task(name=RUN_TASK)  # type: ignore[untyped-decorator]  # celery has no annotations
def run(job_id: str, attempt: int) -> None:
    """Work on one attempt of a job, if it is still there to be claimed."""
    with bound(job_id=job_id, attempt=attempt):
        try:
            claim = _ledger().claim(job_id, attempt, worker_name())
        except QueueUnavailable as error:
            log.warning("cannot be claimed, will be rung again", extra={"detail": error.detail})
            return
        if claim is None:
            log.info("not there to be claimed")
            return
        with bound(fence=claim.fence):
            _attempt(claim, _ledger(), _settings())


def _attempt(claim: Claim, ledger: Ledger, settings: WorkerSettings) -> None:
    """Everything between the two lines that tell of an attempt."""
    began = time.monotonic()
    log.info("attempt started", extra={"worker": claim.worker, "solver": claim.spec.solver.kind})
    try:
        with Heartbeat(
            ledger,
            claim,
            lease_seconds=settings.lease_seconds,
            every_seconds=settings.heartbeat_seconds,
            stall_seconds=settings.stall_seconds,
            on_hung=_end_this_process,
        ) as heartbeat:
            ended = _work(claim, ledger, heartbeat)
    except LeaseLost:
        ended = {"outcome": "lost"}
    level = logging.INFO if ended["outcome"] in ("committed", "cancelled") else logging.WARNING
    log.log(level, "attempt ended", extra={**ended, "seconds": round(time.monotonic() - began, 3)})


def _end_this_process() -> None:
    """Nothing in a hung process can be trusted to end it; the pool starts another in its place."""
    os._exit(70)


def _work(claim: Claim, ledger: Ledger, heartbeat: Heartbeat) -> dict[str, str]:
    """How it ended, in words for the log. Raises LeaseLost."""
    error: AscribeError
    try:
        from worker import pipeline

        reporter = Reporter(_Line(claim, ledger, heartbeat), max_seconds=_settings().max_job_seconds)
        manifest = pipeline.run(claim.spec, _bench(), reporter, _Staging(claim, ledger))
        _insist(lambda: ledger.commit(claim, manifest))
        return {"outcome": "committed"}
    except Cancelled:
        _insist(lambda: ledger.cancelled(claim))
        return {"outcome": "cancelled"}
    except LeaseLost:
        raise
    except AscribeError as raised:
        error = raised
    except MemoryError:
        error = OutOfMemory("the job needs more memory than this worker has: use fewer rows or a smaller model")
    except Exception as raised:
        log.exception("an error of ours")
        error = _explain(raised)
    _insist(lambda: ledger.fail(claim, JobError.of(error)))
    return {"outcome": "failed", "code": error.code}


def _explain(raised: Exception) -> AscribeError:
    if "can't allocate memory" in str(raised) or type(raised).__name__ == "OutOfMemoryError":
        return OutOfMemory("the job needs more memory than this worker has: use fewer rows or a smaller model")
    return InternalError(f"an error of ours ({type(raised).__name__}); the worker's log says where")


@dataclass(slots=True)
class _Line:
    """Progress to the ledger. A short outage of Redis does not end the job: the heartbeat knows when it is too long."""

    claim: Claim
    ledger: Ledger
    heartbeat: Heartbeat
    phase: Phase | None = None

    def __call__(self, progress: Progress) -> bool:
        self.heartbeat.moved()
        if progress.phase != self.phase:
            self.phase = progress.phase
            log.info("phase began", extra={"phase": progress.phase.value, "total": progress.total})
        if self.heartbeat.lost.is_set():
            raise LeaseLost
        try:
            return self.ledger.progress(self.claim, progress)
        except QueueUnavailable:
            return self.heartbeat.cancel_requested.is_set()


@dataclass(frozen=True, slots=True)
class _Staging:
    claim: Claim
    ledger: Ledger

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        held = list(chunks)
        _insist(lambda: self.ledger.stage(self.claim, name, held))

    def announce(self, gradient_fingerprint: str, rows: int) -> None:
        _insist(lambda: self.ledger.announce_gradients(gradient_fingerprint, rows))


def _insist(write: Callable[[], None]) -> None:
    """Retry a ledger write while Redis is away, up to the lease; the work of hours must not die of a restart."""
    for attempt in stamina.retry_context(on=QueueUnavailable, timeout=_settings().lease_seconds, attempts=None):
        with attempt:
            write()


@cache
def _settings() -> WorkerSettings:
    return WorkerSettings()


@cache
def _ledger() -> Ledger:
    return open_ledger(_settings())


@cache
def _bench() -> Bench:
    from worker.pipeline import Bench

    return Bench(_settings())
