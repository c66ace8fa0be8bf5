"""One attempt of a job: claim it, do the work under a lease, commit. Nothing numerical, and safe to run twice."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ascribe.errors import AscribeError, InternalError, OutOfMemory, QueueUnavailable
from ascribe.job import JobError, Phase, Progress
from ascribe.ledger.base import Claim, LeaseLost, Ledger
from ascribe.ledger.heartbeat import Heartbeat
from ascribe.logs import bound
from ascribe.result import Manifest
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from worker import draining, memory
from worker.crew import LedgerCrew
from worker.environment import worker_name
from worker.progress import Cancelled, Draining, Reporter
from worker.staging import Insist, Staging

if TYPE_CHECKING:
    from worker.pipeline import Sink
    from worker.sharing import Crew

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a worker process has at hand.

    ``work`` does a job, ``help`` parts of one; the rest sees to it that a job is done once.
    """

    settings: WorkerSettings
    ledger: Ledger
    work: Callable[[JobSpec, Reporter, Sink, Crew], Manifest]
    help: Callable[[JobSpec, Callable[[int], None]], AbstractContextManager[Callable[[str], None]]]
    """Opens a job for :mod:`worker.helping`, and gives what does a part of it, see :func:`worker.pipeline.helping`."""
    warm: Callable[[], str] = str
    """:func:`ascribe.ledger.base.model_key` of the model that is loaded, '' without one."""


def attend(job_id: str, attempt: int, equipment: Equipment) -> None:
    """Answer a ring: work on this attempt of the job, if it is still there to be claimed, or on one in its place."""
    with bound(job_id=job_id, attempt=attempt):
        try:
            claim = equipment.ledger.claim(job_id, attempt, worker_name(), warm=equipment.warm())
        except QueueUnavailable as error:
            log.warning("cannot be claimed, will be rung again", extra={"detail": error.detail})
            return
        if claim is None:
            log.info("not there to be claimed")
            return
    with bound(job_id=claim.job_id, attempt=claim.attempt, fence=claim.fence):
        _attempt(claim, equipment)


def _attempt(claim: Claim, equipment: Equipment) -> None:
    """Everything between the two lines that tell of an attempt."""
    began = time.monotonic()
    settings = equipment.settings
    log.info("attempt started", extra={"worker": claim.worker, "solver": claim.spec.solver.kind})
    try:
        with Heartbeat(
            lambda: equipment.ledger.renew(claim),
            {"job_id": claim.job_id, "attempt": claim.attempt, "fence": claim.fence},
            lease_seconds=settings.lease_seconds,
            every_seconds=settings.heartbeat_seconds,
            stall_seconds=settings.stall_seconds,
            on_hung=end_this_process,
        ) as heartbeat:
            ended = _work(claim, equipment, heartbeat)
    except (LeaseLost, QueueUnavailable):  # away for as long as a lease: no fault of the job, which goes on elsewhere
        ended = {"outcome": "lost"}
    level = logging.INFO if ended["outcome"] in ("committed", "cancelled", "handed_back") else logging.WARNING
    log.log(level, "attempt ended", extra={**ended, "seconds": round(time.monotonic() - began, 3)})


def end_this_process() -> None:
    """Nothing in a hung process can be trusted to end it; the pool starts another in its place."""
    os._exit(70)


def _work(claim: Claim, equipment: Equipment, heartbeat: Heartbeat) -> dict[str, str]:
    """How it ended, in words for the log. Raises LeaseLost, QueueUnavailable."""
    ledger, settings = equipment.ledger, equipment.settings
    insist = Insist(settings.lease_seconds)
    try:
        reporter = Reporter(_Line(claim, ledger, heartbeat), max_seconds=settings.max_job_seconds)
        crew = LedgerCrew(ledger, claim, settings)
        with Staging(claim, ledger, insist, settings) as sink:
            manifest = equipment.work(claim.spec, reporter, sink, crew)
            insist(lambda: ledger.commit(claim, manifest))
        return {"outcome": "committed"}
    except Cancelled:
        insist(lambda: ledger.cancelled(claim))
        return {"outcome": "cancelled"}
    except Draining:
        insist(lambda: ledger.hand_back(claim))
        return {"outcome": "handed_back"}
    except (LeaseLost, QueueUnavailable):
        raise
    except Exception as raised:  # noqa: BLE001 - told by explain
        error = explain(raised)
    insist(lambda: ledger.fail(claim, JobError.of(error)))
    return {"outcome": "failed", "code": error.code}


def explain(raised: Exception) -> AscribeError:
    """What ended the work, in our words."""
    if isinstance(raised, AscribeError):
        return raised
    if memory.ran_out(raised):
        return OutOfMemory("the job needs more memory than this worker has: use fewer rows or a smaller model")
    log.error("an error of ours", exc_info=raised)
    return InternalError(f"an error of ours ({type(raised).__name__}); the worker's log says where")


@dataclass(slots=True)
class _Line:
    """Progress to the ledger, and from outside whatever ends the work.

    A short outage of Redis does not end the job: the heartbeat knows when it is too long.
    """

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
        if draining.told.is_set():
            raise Draining
        try:
            return self.ledger.progress(self.claim, progress)
        except QueueUnavailable:
            return self.heartbeat.cancel_requested.is_set()
