"""The ledger: the durable truth about jobs. The queue's message is only a doorbell.

Every change of a job is one atomic step that checks state, attempt and fence. A worker whose lease was taken away
finds its fence too old and every write refused with :class:`LeaseLost`. Times are the server's clock, never the
caller's, so that hosts need not agree on the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ascribe.event import Event
from ascribe.job import Job, JobError, Progress
from ascribe.ledger.values import (
    MAX_BACKOFF_SECONDS,
    QUEUES,
    Call,
    Claim,
    Counts,
    Created,
    IdempotencyKey,
    JobFilter,
    LeaseLost,
    Page,
    Part,
    Policy,
    Pulse,
    QueueCounts,
    Reconciled,
    Ring,
    Standing,
    WorkerInfo,
    WrongEnvironment,
    model_key,
)
from ascribe.result import Manifest
from ascribe.spec import JobSpec

__all__ = [
    "MAX_BACKOFF_SECONDS",
    "QUEUES",
    "Call",
    "Claim",
    "Counts",
    "Created",
    "Doorbell",
    "IdempotencyKey",
    "JobFilter",
    "LeaseLost",
    "Ledger",
    "Page",
    "Part",
    "Policy",
    "Pulse",
    "QueueCounts",
    "Reconciled",
    "Ring",
    "Standing",
    "WorkerInfo",
    "WrongEnvironment",
    "model_key",
]


class Doorbell(Protocol):
    """Sends one task message. May raise anything: the ledger rings, and calls, again later."""

    def ring(self, ring: Ring) -> None:
        """For a worker to claim a queued job."""

    def call(self, call: Call) -> None:
        """For a worker to help with a running one."""


class Ledger(Protocol):
    """Both implementations pass tests/conformance/test_ledger.py. Redis not answering raises QueueUnavailable."""

    # -- callers ----------------------------------------------------------------------------------------------
    def create(
        self, job_id: str, spec: JobSpec, idempotency: IdempotencyKey | None = None, *, retry_of: str | None = None
    ) -> Created:
        """Record the job, its outbox entry and its idempotency record in one step.

        ``retry_of``: id of the job that this one asks again; kept as it is given. The same ``job_id`` again is a
        replay too: the first reply was lost. Raises IdempotencyReused when the key stands for another body, QueueFull
        when ``max_queued_jobs`` wait already; a replay is answered even then.
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
    def claim(self, job_id: str, attempt: int, worker: str, *, warm: str = "") -> Claim | None:
        """queued at this attempt -> running under a new fence; None when it is not there to be had.

        ``warm`` is the :func:`model_key` of the model the worker has loaded. If this job wants another one, and a job
        of the same queue and priority waits for that one, the latter is claimed in its place: the first to wait. The
        job passed over is rung again at once, and never passed over again.
        """

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

    def hand_back(self, claim: Claim) -> None:
        """running -> queued at attempt + 1, to be rung at once and not counted as lost; cancelling -> cancelled.

        For a worker that is told to stop. What was staged is dropped. Raises LeaseLost.
        """

    def mourn(self, job_id: str, attempt: int, worker: str) -> None:
        """The process ``worker`` has died, for certain: if it holds this attempt, its lease ends now.

        For whoever started that process; the next :meth:`reconcile` takes the attempt away as any other lost one.
        """

    # -- shared work ------------------------------------------------------------------------------------------
    # The owner of a running job lays out parts of its work, and any worker of the same environment takes them. A part
    # is a hint: what was computed lies in the content-addressed store, and whoever wants it looks there. All parts
    # vanish with the attempt, however it ends.
    def offer(self, claim: Claim, environment: str, parts: Sequence[str]) -> None:
        """Parts to take, in this order, in place of those offered before. Raises LeaseLost.

        ``environment`` is a fingerprint of all that must be equal for equal bits.
        """

    def take(self, job_id: str, worker: str, environment: str, *, owner: Claim | None = None) -> Part | None:
        """The next part that is open, or whose lease ran out; None when there is none to be had.

        A part that was taken ``max_attempts`` times is left to the ``owner``, the job's present claim. Raises
        WrongEnvironment when the parts were offered to others, LeaseLost when the claim given is not the present one.
        """

    def keep(self, part: Part) -> None:
        """Extend the part's lease. Raises LeaseLost as the two below, also once the job is to be cancelled."""

    def finish(self, part: Part) -> None:
        """It is done; said twice is no error. Raises LeaseLost."""

    def drop(self, part: Part) -> None:
        """Give it back at once, to be taken next. Raises LeaseLost."""

    def standing(self, claim: Claim) -> Standing:
        """Of what was offered last. Raises LeaseLost."""

    def finished_parts(self, claim: Claim, after: int = 0) -> Sequence[tuple[str, str]]:
        """Name and worker of each, in order of finishing, without the first ``after``. Raises LeaseLost."""

    # -- upkeep -----------------------------------------------------------------------------------------------
    def reconcile(self) -> Reconciled:
        """One pass over a bounded number of jobs: take the outbox, re-ring queued jobs nobody claimed, call helpers
        to jobs with open parts, take expired leases away. Call again while it finds rings.

        Safe to call from many processes at once: each ring is handed out once. An expired lease re-queues the job at
        attempt + 1 after ``retry_backoff_seconds``, ends it as failed ``worker_lost`` when it is the last of
        ``max_attempts``, as cancelled when it was cancelling. Calls are made when parts are offered and, while any
        are unfinished, again as rings are.
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
