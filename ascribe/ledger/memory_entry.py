"""One job as the in-memory ledger keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ascribe.job import Job, JobState
from ascribe.ledger.base import JobFilter

LEASED = (JobState.RUNNING, JobState.CANCELLING)


@dataclass(slots=True)
class Entry:
    """The record, and what it does not show. Times are seconds of the ledger's clock."""

    job: Job
    ring_due: float
    rings: int = 0
    fence: int = 0
    lease_until: float = 0
    expires_at: float | None = None
    result_until: float = 0
    idempotency: str | None = None
    scores: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    def change(self, **fields: object) -> None:
        """Records are frozen: a change is a new one."""
        self.job = self.job.model_copy(update=fields)

    def close_attempt(self, outcome: str, now: datetime) -> None:
        *before, last = self.job.attempts
        self.change(attempts=(*before, last.model_copy(update={"ended_at": now, "outcome": outcome})))


def matches(job_filter: JobFilter, job: Job) -> bool:
    if job_filter.status is not None and job.status != job_filter.status:
        return False
    if job_filter.model is not None and job_filter.model not in (job.spec.model.base, job.spec.model.adapter):
        return False
    return job_filter.labels.items() <= job.spec.labels.items()
