"""The one task: claim the job, run the pipeline, commit. Nothing numerical, and safe to run twice.

torch is imported when the first job arrives, so a worker is ready in under a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import stamina
from celery import shared_task

from ascribe.broker import RUN_TASK
from ascribe.errors import AscribeError, InternalError, OutOfMemory, QueueUnavailable
from ascribe.job import JobError, Progress
from ascribe.ledger.base import Claim, LeaseLost, Ledger
from ascribe.ledger.heartbeat import Heartbeat
from ascribe.ledger.opening import open_ledger
from ascribe.settings import WorkerSettings
from worker.environment import worker_name
from worker.progress import Cancelled, Reporter

if TYPE_CHECKING:
    from worker.pipeline import Bench

log = logging.getLogger(__name__)


@shared_task(name=RUN_TASK)  # type: ignore[untyped-decorator]  # celery has no annotations
def run(job_id: str, attempt: int) -> None:
    """Work on one attempt of a job, if it is still there to be claimed."""
    settings = _settings()
    ledger = _ledger()
    try:
        claim = ledger.claim(job_id, attempt, worker_name())
    except QueueUnavailable as error:
        log.warning("job %s attempt %d cannot be claimed and will be rung again: %s", job_id, attempt, error.detail)
        return
    if claim is None:
        log.info("job %s attempt %d is not there to be claimed", job_id, attempt)
        return
    try:
        with Heartbeat(
            ledger,
            claim,
            lease_seconds=settings.lease_seconds,
            every_seconds=settings.heartbeat_seconds,
            stall_seconds=settings.stall_seconds,
        ) as heartbeat:
            _work(claim, ledger, heartbeat)
    except LeaseLost:
        log.warning("job %s attempt %d lost its lease; what it did is thrown away", job_id, attempt)


def _work(claim: Claim, ledger: Ledger, heartbeat: Heartbeat) -> None:
    error: AscribeError
    try:
        from worker import pipeline

        manifest = pipeline.run(
            claim.spec, _bench(), Reporter(_Line(claim, ledger, heartbeat)), _Staging(claim, ledger)
        )
        _insist(lambda: ledger.commit(claim, manifest))
        return
    except Cancelled:
        _insist(lambda: ledger.cancelled(claim))
        return
    except LeaseLost:
        raise
    except AscribeError as raised:
        error = raised
    except MemoryError:
        error = OutOfMemory("the job needs more memory than this worker has: use fewer rows or a smaller model")
    except Exception as raised:
        log.exception("job %s attempt %d", claim.job_id, claim.attempt)
        error = _explain(raised)
    log.warning("job %s attempt %d failed: %s", claim.job_id, claim.attempt, error.code)
    _insist(lambda: ledger.fail(claim, JobError.of(error)))


def _explain(raised: Exception) -> AscribeError:
    if "can't allocate memory" in str(raised) or type(raised).__name__ == "OutOfMemoryError":
        return OutOfMemory("the job needs more memory than this worker has: use fewer rows or a smaller model")
    return InternalError(f"an error of ours ({type(raised).__name__}); the worker's log has the traceback")


@dataclass(frozen=True, slots=True)
class _Line:
    """Progress to the ledger. A short outage of Redis does not end the job: the heartbeat knows when it is too long."""

    claim: Claim
    ledger: Ledger
    heartbeat: Heartbeat

    def __call__(self, progress: Progress) -> bool:
        self.heartbeat.moved()
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
