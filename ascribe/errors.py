"""Every error Ascribe raises on purpose.

AscribeError
├── InvalidInput            422  the request, a file or a row is wrong; carries pointers
│   ├── UnsafeCheckpoint    422  a format that can run code when it is loaded
│   ├── UnsupportedModel    422  a checkpoint we can read and do not handle
│   ├── LimitExceeded       422  more rows, cells or bytes than this server takes
│   ├── DoesNotFit          422  by the estimate the job needs more memory than there is, even row by row
│   ├── PlanExceedsSteps    422  an iterative solve that would need more steps than allowed
│   └── IdempotencyReused   422  one Idempotency-Key, two different bodies
├── Unauthorized            401
├── NotFound                404
├── NotReady                404  the job has no scores yet
├── Conflict                409  not possible in the job's present state
├── Expired                 410  the scores have outlived their TTL
├── QueueFull               429  as many jobs wait as this server takes; retry
├── QueueUnavailable        503  Redis does not answer; retry
├── Busy                    503  as many files are being read as this server reads at once; retry
├── NonFinite               failed job: a loss, gradient, curvature or solution is not finite
├── SolveFailed             failed job: a solve ended without a usable solution
├── OutOfMemory             failed job: model, batch or block does not fit
├── StorageFailed           503, failed job: a folder or the shared store refused a write or a read; retry
│   └── NoRoom              the same, because it is full
├── ResultDamaged           500  stored scores are not what was written; submit the job again
├── WorkerLost              failed job: attempts are used up, each ended without a word
└── InternalError           a fault of ours; the log has the traceback

Messages never repeat an input value: paths and URIs carry secrets. They name the field, the row id or the
limit, and say what to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong and where: ``pointer`` is a JSON pointer into the spec or the dataset."""

    pointer: str
    code: str
    message: str


class AscribeError(Exception):
    """Root of the tree. ``detail`` is for people, ``code`` for programs, ``status`` for HTTP."""

    code = "internal_error"
    title = "Internal error"
    status = 500
    retryable = False

    def __init__(self, detail: str, *, errors: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)


class InvalidInput(AscribeError):
    code, title, status = "invalid_input", "Invalid input", 422

    @classmethod
    def at(cls, pointer: str, code: str, message: str) -> Self:
        """One problem at one place."""
        return cls(message, errors=[Problem(pointer, code, message)])


class UnsafeCheckpoint(InvalidInput):
    code, title = "unsafe_checkpoint", "Unsafe checkpoint"


class UnsupportedModel(InvalidInput):
    code, title = "unsupported_model", "Unsupported model"


class LimitExceeded(InvalidInput):
    code, title = "limit_exceeded", "Limit exceeded"


class DoesNotFit(InvalidInput):
    code, title = "does_not_fit", "Does not fit into memory"


class PlanExceedsSteps(InvalidInput):
    code, title = "plan_exceeds_steps", "Plan exceeds the step limit"


class IdempotencyReused(InvalidInput):
    code, title = "idempotency_key_reused", "Idempotency key reused with another body"


class Unauthorized(AscribeError):
    code, title, status = "unauthorized", "Unauthorized", 401


class NotFound(AscribeError):
    code, title, status = "not_found", "Not found", 404


class NotReady(AscribeError):
    code, title, status, retryable = "not_ready", "Not ready", 404, True


class Conflict(AscribeError):
    code, title, status = "conflict", "Conflict", 409


class Expired(AscribeError):
    code, title, status = "expired", "Expired", 410


class QueueFull(AscribeError):
    code, title, status, retryable = "queue_full", "Queue full", 429, True


class QueueUnavailable(AscribeError):
    code, title, status, retryable = "queue_unavailable", "Queue unavailable", 503, True


class Busy(AscribeError):
    code, title, status, retryable = "busy", "Busy", 503, True


class NonFinite(AscribeError):
    code, title, status = "non_finite", "Not a finite number", 422


class SolveFailed(AscribeError):
    code, title, status = "solve_failed", "Solve failed", 422


class OutOfMemory(AscribeError):
    code, title = "out_of_memory", "Out of memory"


class StorageFailed(AscribeError):
    code, title, status, retryable = "storage", "Storage failed", 503, True


class NoRoom(StorageFailed):
    pass


class ResultDamaged(AscribeError):
    code, title = "result_damaged", "Result damaged"


class WorkerLost(AscribeError):
    code, title, retryable = "worker_lost", "Worker lost", True


class InternalError(AscribeError):
    pass
