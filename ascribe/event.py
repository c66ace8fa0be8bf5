"""What happened to a job, in order: the steps that a caller, an operator or a dashboard follows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from ascribe.job import Phase, Record

MAX_EVENTS = 256
"""Events kept of one job, the latest ones; as in common.lua. An attempt makes about ten."""


class EventType(StrEnum):
    CREATED = "created"
    STARTED = "started"
    PHASE = "phase"
    CANCEL_REQUESTED = "cancel_requested"
    LEASE_LOST = "lease_lost"
    HANDED_BACK = "handed_back"
    REQUEUED = "requeued"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_MESSAGES: Mapping[EventType, str] = {
    EventType.CREATED: "The job is queued.",
    EventType.STARTED: "A worker started attempt {attempt}.",
    EventType.PHASE: "Attempt {attempt} is {detail}.",
    EventType.CANCEL_REQUESTED: "The job was asked to stop.",
    EventType.LEASE_LOST: "The worker of attempt {attempt} went silent.",
    EventType.HANDED_BACK: "The worker of attempt {attempt} was told to stop and handed the job back.",
    EventType.REQUEUED: "The job is queued again, as attempt {attempt}.",
    EventType.SUCCEEDED: "The scores are ready.",
    EventType.FAILED: "The job failed: {detail}.",
    EventType.CANCELLED: "The job was cancelled.",
}


class Event(Record):
    """One step of a job. Ids count from 1 for each job; the times are the ledger's."""

    object: Literal["event"] = "event"
    id: int = Field(ge=1)
    job_id: str
    type: EventType
    created_at: datetime
    attempt: int = Field(ge=1)
    phase: Phase | None = Field(default=None, description="The phase that began, for type 'phase'.")
    code: str | None = Field(default=None, description="The error's code, for type 'failed'.")
    message: str


def make_event(job_id: str, number: int, kind: EventType, at: datetime, attempt: int, detail: str) -> Event:
    """``detail``: the phase, or the error's code."""
    return Event(
        id=number,
        job_id=job_id,
        type=kind,
        created_at=at,
        attempt=attempt,
        phase=Phase(detail) if kind is EventType.PHASE else None,
        code=detail if kind is EventType.FAILED else None,
        message=_MESSAGES[kind].format(attempt=attempt, detail=detail.replace("_", " ")),
    )
