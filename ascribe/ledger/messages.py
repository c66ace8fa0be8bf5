"""What both ledgers say when something cannot be had, in one wording."""

from __future__ import annotations

from ascribe.errors import (
    Conflict,
    Expired,
    IdempotencyReused,
    InternalError,
    NotFound,
    NotReady,
    QueueFull,
    WorkerLost,
)
from ascribe.job import JobError, JobState
from ascribe.ledger.values import LeaseLost, WrongEnvironment

_NOT_READY = {
    JobState.QUEUED: "The job is queued and has no scores yet: ask again when its status is 'succeeded'.",
    JobState.RUNNING: "The job is running and has no scores yet: ask again when its status is 'succeeded'.",
    JobState.CANCELLING: "The job is being cancelled and will have no scores.",
    JobState.CANCELLED: "The job was cancelled and has no scores: submit it again.",
    JobState.FAILED: "The job failed and has no scores: see its 'error' for what to change.",
}


def no_job() -> NotFound:
    return NotFound("There is no job with this id; records of ended jobs expire.")


def no_vector() -> NotFound:
    return NotFound("The job has no scores under this name: see 'vectors' of its result.")


def not_ready(status: JobState) -> NotReady:
    return NotReady(_NOT_READY[status])


def expired() -> Expired:
    return Expired("The scores have outlived their time to live; the record is kept. Submit the job again.")


def not_ended() -> Conflict:
    return Conflict("Only an ended job can be deleted: cancel it first and wait until it is.")


def not_cancelling() -> Conflict:
    return Conflict("The job was not asked to cancel: an attempt ends as cancelled only after a request.")


def not_staged() -> InternalError:
    return InternalError("The result names vectors that are not staged: nothing was committed.")


def queue_full(limit: int) -> QueueFull:
    return QueueFull(f"{limit} jobs are queued, the limit max_queued_jobs: wait for some to end, or add workers.")


def idempotency_reused() -> IdempotencyReused:
    return IdempotencyReused("This Idempotency-Key was used with another body: use a new key for a new job.")


def worker_lost(attempts: int | str) -> JobError:
    return JobError.of(
        WorkerLost(
            f"Too many attempts ({attempts}) ended without a word from their worker: 'attempts' says which and when. "
            "Look into their logs and their machines' memory: a worker killed for memory leaves no other trace. If it "
            "was that, use fewer rows, a smaller model or a machine with more memory, and retry."
        )
    )


def lease_lost() -> LeaseLost:
    return LeaseLost("the lease was taken away: writes under it are refused")


def wrong_environment() -> WrongEnvironment:
    return WrongEnvironment("the parts of this job are for workers of another environment")
