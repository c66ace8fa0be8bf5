"""The job record: states, legal transitions, progress, attempts, errors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ascribe.errors import AscribeError
from ascribe.result import Manifest
from ascribe.spec import JOB_ID_PATTERN as JOB_ID_PATTERN
from ascribe.view import SpecView

PROBLEM_BASE = "urn:ascribe:problems:"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING, JobState.QUEUED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""RUNNING -> QUEUED is a lost lease, or an attempt handed back: the same job, attempt + 1."""


class Phase(StrEnum):
    LOADING = "loading"
    CACHING_GRADIENTS = "caching_gradients"
    BUILDING_CURVATURE = "building_curvature"
    SOLVING = "solving"
    SCORING = "scoring"
    WRITING = "writing"


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Progress(Record):
    """Where the running attempt is. ``fraction`` and ``eta_seconds`` are of the present phase."""

    phase: Phase
    done: int = Field(ge=0)
    total: int = Field(ge=0, description="Rows, blocks or chunks, as the phase counts.")
    fraction: float = Field(ge=0, le=1)
    eta_seconds: float | None = None
    updated_at: datetime | None = None


class ProblemItem(Record):
    pointer: str
    code: str
    message: str


class JobError(Record):
    """RFC 9457 problem, the same shape in HTTP errors and in ``job.error``."""

    type: str
    title: str
    status: int
    code: str
    retryable: bool
    detail: str
    request_id: str | None = None
    errors: tuple[ProblemItem, ...] = ()

    @classmethod
    def of(cls, error: AscribeError, *, request_id: str | None = None) -> JobError:
        return cls(
            type=PROBLEM_BASE + error.code.replace("_", "-"),
            title=error.title,
            status=error.status,
            code=error.code,
            retryable=error.retryable,
            detail=error.detail,
            request_id=request_id,
            errors=tuple(ProblemItem(pointer=p.pointer, code=p.code, message=p.message) for p in error.errors),
        )


class Attempt(Record):
    """One claim of the job by a worker; ``outcome`` is set when it ended."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None = None
    outcome: Literal["succeeded", "failed", "cancelled", "lost", "handed_back"] | None = Field(
        default=None, description="'lost': its worker went silent; 'handed_back': its worker was told to stop."
    )


class Job(Record):
    object: Literal["job"] = "job"
    id: str = Field(pattern=JOB_ID_PATTERN)
    revision: int = Field(default=0, ge=0, description="Grows with every change of this record.")
    status: JobState
    spec: SpecView
    created_at: datetime
    started_at: datetime | None = Field(default=None, description="When the latest attempt was claimed.")
    finished_at: datetime | None = None
    attempt: int = Field(ge=1, description="Number of the present attempt, from 1.")
    attempts: tuple[Attempt, ...] = ()
    progress: Progress | None = None
    error: JobError | None = None
    result: Manifest | None = None
    retry_of: str | None = Field(default=None, description="Id of the job that this one asks again.")
