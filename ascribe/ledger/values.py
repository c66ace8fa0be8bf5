"""What is told to a ledger and by it: plain values, and the two ways to be refused as a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from ascribe.job import Job, JobState
from ascribe.spec import JobSpec, ModelSpec, Priority, Queue

QUEUES: tuple[Queue, ...] = get_args(Queue)
MAX_BACKOFF_SECONDS = 300.0
RUNG_AGAIN = 50
"""How many of a queue's first jobs are rung again: those behind them wait for them, their message lost or not."""
MOST_DOUBLINGS = 4
"""Of the pause between two messages about the same."""


class LeaseLost(Exception):
    """This attempt no longer owns the job, or this worker the part; whatever it still does must be thrown away."""


class WrongEnvironment(Exception):
    """The job's parts must be computed where other bits come out than here: this worker declines to help."""


def model_key(model: ModelSpec) -> str:
    """Which model a worker has loaded, or a job wants."""
    return f"{model.base}\0{model.adapter or ''}"


@dataclass(frozen=True, slots=True)
class Policy:
    """The ledger's times and bounds, in seconds; filled from settings by whoever composes the process."""

    lease_seconds: float = 60
    ring_again_seconds: float = 15
    """After the first ring, for the first ``RUNG_AGAIN`` of a queue; each further ring waits twice as long, up to 16
    times."""
    max_attempts: int = 3
    """Times a job loses its worker before it fails; an attempt that was handed back costs none."""
    retry_backoff_seconds: float = 5
    """Before a job whose worker was lost is rung again; twice as long after each further loss, up to five minutes."""
    max_queued_jobs: int = 1000
    result_ttl_seconds: float = 7 * 86400
    record_ttl_seconds: float = 30 * 86400
    idempotency_ttl_seconds: float = 86400


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key, and the fingerprint of method, path and canonical body it was first used with."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Created:
    job: Job
    replayed: bool
    """True when the idempotency key had already made this job."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one attempt of a job, until the lease runs out."""

    job_id: str
    attempt: int
    fence: int
    worker: str
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class Ring:
    """A message to send: job ``job_id`` waits at attempt ``attempt``."""

    job_id: str
    attempt: int
    queue: Queue = "cpu"
    priority: Priority = "normal"


@dataclass(frozen=True, slots=True)
class Call:
    """A message to send: running job ``job_id`` has parts for one more worker of this queue."""

    job_id: str
    queue: Queue = "cpu"
    priority: Priority = "normal"


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What one pass of the reconciler found to do."""

    rings: tuple[Ring, ...] = ()
    requeued: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    """As many of a job as there are open parts, and at most as many as workers which could help its owner."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    status: JobState | None = None
    model: str | None = None
    """Matches ``spec.model.base`` or ``spec.model.adapter``."""
    labels: Mapping[str, str] = field(default_factory=dict)
    query_of: str | None = None
    """Id of the job that a query asks about."""


@dataclass(frozen=True, slots=True)
class Page:
    jobs: tuple[Job, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Pulse:
    """What tells a follower of a job that there is something new to read."""

    status: JobState
    revision: int
    events: int
    """Number of the latest event."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """``queued + running`` is how many workers the queue could keep busy."""

    queued: int
    running: int
    """Held by a worker: running or cancelling."""
    oldest_queued_seconds: float
    """How long the job that waits longest has been in the queue; 0 without any."""


@dataclass(frozen=True, slots=True)
class Counts:
    jobs: Mapping[JobState, int]
    """Records in each state."""
    queues: Mapping[Queue, QueueCounts]
    totals: Mapping[str, float]
    """Since the ledger began: see :mod:`ascribe.ledger.totals`."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A live worker and what its gradients depend on, so that a dry run can predict cache hits."""

    worker: str
    queue: str
    versions: Mapping[str, str]
    attention: str
    token_budget: int
    shard_rows: int
    device: str
    environment: str
    """Fingerprint of all that must be equal for equal bits: who shares work with whom."""


@dataclass(frozen=True, slots=True)
class Part:
    """The right to work on one part of a running job, until its lease runs out."""

    job_id: str
    fence: int
    """The job's, when the part was taken."""
    name: str
    token: int
    """Each taking of a part has a greater one than those before it under the same fence."""
    worker: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How many parts of a job are open, taken and done."""

    open: int
    taken: int
    done: int
