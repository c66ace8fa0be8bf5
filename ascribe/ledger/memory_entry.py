"""One job as the in-memory ledger keeps it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from ascribe.event import MAX_EVENTS, Event, EventType, make_event
from ascribe.job import Job, JobState
from ascribe.ledger.values import JobFilter, Part, Pulse
from ascribe.spec import JobSpec

LEASED = (JobState.RUNNING, JobState.CANCELLING)


@dataclass(slots=True)
class Work:
    """What was offered of a job.

    ``due``: when the lease of an unfinished part ends, 0 while it is open, inf when only the owner may take it.
    """

    environment: str
    call_due: float
    due: dict[str, float]
    token: int
    calls: int = 0
    takes: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    """The token of each part that is taken."""
    done: dict[str, Part] = field(default_factory=dict)

    def open(self, now: float) -> list[str]:
        """In the order in which they are taken."""
        return sorted((name for name, due in self.due.items() if due <= now), key=lambda name: self.due[name])

    def reserved(self) -> list[str]:
        return [name for name, due in self.due.items() if due == math.inf]

    def next(self, now: float, most: int, *, by_owner: bool) -> str | None:
        """Which part to hand out; those that others took ``most`` times already are put aside for the owner."""
        for name in self.open(now):
            if by_owner or self.takes.get(name, 0) < most:
                return name
            self.due[name] = math.inf
        return next(iter(self.reserved()), None) if by_owner else None

    def hand_out(self, name: str, until: float) -> int:
        """Its token."""
        self.token += 1
        self.takes[name] = self.takes.get(name, 0) + 1
        self.held[name], self.due[name] = self.token, until
        return self.token


@dataclass(slots=True)
class Entry:
    """The record, and what it does not show. Times are seconds of the ledger's clock."""

    job: Job
    spec: JobSpec
    queued_at: float = 0
    ring_due: float = 0
    waits_from: float = 0
    """When it may be claimed in another job's place."""
    rings: int = 0
    passed: bool = False
    fence: int = 0
    lost: int = 0
    lease_until: float = 0
    expires_at: float | None = None
    result_until: float = 0
    idempotency: str | None = None
    work: Work | None = None
    scores: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))

    def change(self, **fields: object) -> None:
        """Records are frozen: a change is a new one."""
        self.job = self.job.model_copy(update={**fields, "revision": self.job.revision + 1})

    def tell(self, kind: EventType, now: datetime, detail: str = "") -> None:
        number = self.events[-1].id + 1 if self.events else 1
        self.events.append(make_event(self.job.id, number, kind, now, self.job.attempt, detail))

    def pulse(self) -> Pulse:
        return Pulse(self.job.status, self.job.revision, self.events[-1].id)

    def close_attempt(self, outcome: str, now: datetime) -> None:
        *before, last = self.job.attempts
        self.change(attempts=(*before, last.model_copy(update={"ended_at": now, "outcome": outcome})))
        self.work = None


def matches(job_filter: JobFilter, job: Job) -> bool:
    if job_filter.status is not None and job.status != job_filter.status:
        return False
    if job_filter.model is not None and job_filter.model not in (job.spec.model.base, job.spec.model.adapter):
        return False
    asked = job.spec.query_of.job_id if job.spec.query_of else None
    if job_filter.query_of is not None and job_filter.query_of != asked:
        return False
    return job_filter.labels.items() <= job.spec.labels.items()
