"""The ledger: the durable truth about jobs. The queue's message is only a doorbell.

Every change of a job is one atomic step that checks state, attempt and fence. A worker whose lease was taken away
finds its fence too old and every write refused with :class:`LeaseLost`. Times are the server's clock, never the
caller's, so that hosts need not agree on the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ascribe.event import Event
from ascribe.job import Job, JobError, JobState, Progress
from ascribe.result import Manifest
from ascribe.spec import JobSpec


class LeaseLost(Exception):
    """This attempt no longer owns the job; whatever it still does must be thrown away."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The ledger's times and bounds, in seconds; filled from settings by whoever composes the process."""

    lease_seconds: float = 60
    ring_again_seconds: float = 15
    """After the first ring; each further one waits twice as long, up to 16 times, or a backlog fills the queue."""
    max_attempts: int = 3
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


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What one pass of the reconciler found to do."""

    rings: tuple[Ring, ...] = ()
    requeued: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


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
class Counts:
    jobs: Mapping[JobState, int]
    """Records in each state."""
    oldest_queued_seconds: float
    """How long the job that waits longest has been in the queue; 0 without any."""
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


class Doorbell(Protocol):
    """Sends one task message. May raise anything: the ledger rings again later."""

    def ring(self, ring: Ring) -> None: ...


class Ledger(Protocol):
    """Both implementations pass tests/conformance/test_ledger.py. Redis not answering raises QueueUnavailable."""

    # -- callers ----------------------------------------------------------------------------------------------
    def create(self, job_id: str, spec: JobSpec, idempotency: IdempotencyKey | None = None) -> Created:
        """Record the job, its outbox entry and its idempotency record in one step.

        The same ``job_id`` again is a replay too: the first reply was lost. Raises IdempotencyReused when the key
        stands for another body, QueueFull when ``max_queued_jobs`` wait already; a replay is answered even then.
        """

    def replayed(self, idempotency: IdempotencyKey) -> Job | None:
        """The job this key has made, None for a new key. Raises IdempotencyReused as :meth:`create` does.

        To be asked before a spec is checked: what it names may be gone by the time a caller sends it again.
        """

    def get(self, job_id: str) -> Job:
        """The record, its spec without inline rows. Raises NotFound."""

    def spec(self, job_id: str) -> JobSpec:
        """What was asked, inline rows and all. Raises NotFound."""

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """The job's steps in order, those with a number above ``after``; the latest 256 are kept. Raises NotFound."""

    def pulses(self, job_ids: Sequence[str]) -> Sequence[Pulse | None]:
        """One for each job, None where there is no such job: small enough to ask for many, often."""

    def list(self, job_filter: JobFilter, *, after: str | None = None, limit: int = 20) -> Page:
        """Newest first; ``after`` is the id of the last job already seen."""

    def request_cancel(self, job_id: str) -> Job:
        """queued -> cancelled, running -> cancelling; terminal and cancelling stay as they are."""

    def delete(self, job_id: str) -> None:
        """The record and every score. Raises NotFound, Conflict while the job is not terminal."""

    def read(self, job_id: str, name: str) -> Iterator[bytes]:
        """One committed vector or row list, in order, in chunks of at most 1 MiB whatever the chunks it was staged in.

        Raises NotReady, Expired, NotFound: at the call, and while reading when the result goes away.
        """

    def read_range(self, job_id: str, names: Sequence[str], offset: int, length: int) -> Sequence[bytes]:
        """The same ``length`` bytes from ``offset`` on of each of these committed vectors, and no others of them.

        Shorter where a vector ends before. Raises NotReady, Expired, NotFound.
        """

    # -- workers ----------------------------------------------------------------------------------------------
    # An owner may end its attempt twice in the same way, as it must when the first reply was lost.
    def claim(self, job_id: str, attempt: int, worker: str) -> Claim | None:
        """queued at this attempt -> running under a new fence; None when it is not there to be had."""

    def renew(self, claim: Claim) -> bool:
        """Extend the lease; True when the job is to be cancelled. Raises LeaseLost."""

    def progress(self, claim: Claim, progress: Progress) -> bool:
        """Record progress, as :meth:`renew` otherwise (the lease is extended too). Raises LeaseLost."""

    def stage(self, claim: Claim, name: str, chunks: Iterable[bytes]) -> None:
        """Put one vector beside the job, invisible until the commit; again starts it over. Raises LeaseLost."""

    def commit(self, claim: Claim, manifest: Manifest) -> None:
        """running -> succeeded, and the staged vectors become the result; cancelling -> cancelled.

        Raises LeaseLost, InternalError when something of ``manifest.staged`` is not staged.
        """

    def fail(self, claim: Claim, error: JobError) -> None:
        """running or cancelling -> failed; what was staged is dropped. Raises LeaseLost."""

    def cancelled(self, claim: Claim) -> None:
        """cancelling -> cancelled; what was staged is dropped. Raises LeaseLost, Conflict when nobody asked."""

    # -- upkeep -----------------------------------------------------------------------------------------------
    def reconcile(self) -> Reconciled:
        """One pass over a bounded number of jobs: take the outbox, re-ring queued jobs nobody claimed, take expired
        leases away. Call again while it finds rings.

        Safe to call from many processes at once: each ring is handed out once. An expired lease re-queues the job at
        attempt + 1, ends it as failed ``worker_lost`` after ``max_attempts``, as cancelled when it was cancelling.
        """

    def ping(self) -> None:
        """Raises QueueUnavailable."""

    def counts(self) -> Counts:
        """For metrics: counted inside the steps that change jobs, so that many processes agree and none forgets."""

    def register_worker(self, info: WorkerInfo, ttl_seconds: float) -> None: ...

    def workers(self) -> Sequence[WorkerInfo]: ...

    def announce_gradients(self, gradient_fingerprint: str, rows: int) -> None:
        """A worker holds complete gradients under this fingerprint."""

    def announced_gradients(self, gradient_fingerprint: str) -> int | None:
        """Rows announced under this fingerprint, a hint for dry runs: only the worker knows for sure."""

    def take_turn(self, task: str, seconds: float) -> bool:
        """True for one caller, in whatever process, in so many seconds: for upkeep that one of them is to do."""

    def close(self) -> None: ...
