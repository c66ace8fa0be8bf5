"""The ledger in this process's memory: for tests and for one-process use. Same contract, same suite as Redis."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from ascribe.event import Event, EventType
from ascribe.job import Attempt, Job, JobError, JobState, Progress
from ascribe.ledger import messages
from ascribe.ledger.base import (
    Claim,
    Counts,
    Created,
    IdempotencyKey,
    JobFilter,
    LeaseLost,
    Page,
    Policy,
    Pulse,
    Reconciled,
    Ring,
)
from ascribe.ledger.chunks import pieces, rechunk
from ascribe.ledger.memory_entry import LEASED, Entry, matches
from ascribe.ledger.memory_workers import MemoryWorkers
from ascribe.ledger.totals import FINISHED, LEASE_LOST, of_result
from ascribe.result import Manifest
from ascribe.spec import JobSpec
from ascribe.view import SpecView


class MemoryLedger(MemoryWorkers):
    """See :class:`ascribe.ledger.base.Ledger`. ``clock`` gives seconds since the epoch."""

    def __init__(self, policy: Policy, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(policy, clock)
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._keys: dict[str, tuple[str, str, float]] = {}
        self._totals: defaultdict[str, float] = defaultdict(float)

    # -- callers ----------------------------------------------------------------------------------------------
    def create(self, job_id: str, spec: JobSpec, idempotency: IdempotencyKey | None = None) -> Created:
        with self._lock:
            self._forget_expired()
            if idempotency and (first := self.replayed(idempotency)):
                return Created(first, replayed=True)
            if job_id in self._entries:
                return Created(self._entries[job_id].job, replayed=True)
            queued = sum(entry.job.status == JobState.QUEUED for entry in self._entries.values())
            if queued >= self._policy.max_queued_jobs:
                raise messages.queue_full(self._policy.max_queued_jobs)
            now = self._now()
            view = SpecView.of(spec)
            job = Job(id=job_id, revision=1, status=JobState.QUEUED, spec=view, created_at=now, attempt=1)
            self._entries[job_id] = entry = Entry(job, spec, ring_due=self._clock(), queued_at=self._clock())
            entry.tell(EventType.CREATED, now)
            if idempotency:
                entry.idempotency = idempotency.key
                until = self._clock() + self._policy.idempotency_ttl_seconds
                self._keys[idempotency.key] = (job_id, idempotency.fingerprint, until)
            return Created(job, replayed=False)

    def replayed(self, idempotency: IdempotencyKey) -> Job | None:
        with self._lock:
            self._forget_expired()
            if idempotency.key not in self._keys:
                return None
            first, fingerprint, _ = self._keys[idempotency.key]
            if fingerprint != idempotency.fingerprint:
                raise messages.idempotency_reused()
            return self._entries[first].job

    def get(self, job_id: str) -> Job:
        return self._entry(job_id).job

    def spec(self, job_id: str) -> JobSpec:
        return self._entry(job_id).spec

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        with self._lock:
            return [event for event in self._entry(job_id).events if event.id > after][:limit]

    def pulses(self, job_ids: Sequence[str]) -> Sequence[Pulse | None]:
        with self._lock:
            self._forget_expired()
            entries = [self._entries.get(job_id) for job_id in job_ids]
            return [entry.pulse() if entry else None for entry in entries]

    def list(self, job_filter: JobFilter, *, after: str | None = None, limit: int = 20) -> Page:
        with self._lock:
            self._forget_expired()
            newest_first = sorted(self._entries, reverse=True)
            jobs = [self._entries[job_id].job for job_id in newest_first if after is None or job_id < after]
        found = [job for job in jobs if matches(job_filter, job)]
        return Page(tuple(found[:limit]), has_more=len(found) > limit)

    def request_cancel(self, job_id: str) -> Job:
        with self._lock:
            entry = self._entry(job_id)
            if entry.job.status == JobState.QUEUED:
                self._finish(entry, JobState.CANCELLED)
            elif entry.job.status == JobState.RUNNING:
                entry.change(status=JobState.CANCELLING)
                entry.tell(EventType.CANCEL_REQUESTED, self._now())
            return entry.job

    def delete(self, job_id: str) -> None:
        with self._lock:
            entry = self._entry(job_id)
            if not entry.job.status.terminal:
                raise messages.not_ended()
            self._forget(job_id)

    def read(self, job_id: str, name: str) -> Iterator[bytes]:
        return (chunk for chunk in self._chunks(job_id, name) if chunk)

    def read_range(self, job_id: str, names: Sequence[str], offset: int, length: int) -> Sequence[bytes]:
        chunks = [self._chunks(job_id, name) for name in names]
        where = list(pieces(offset, length))
        return [b"".join(part[begin:end] for i, begin, end in where for part in stored[i : i + 1]) for stored in chunks]

    def _chunks(self, job_id: str, name: str) -> tuple[bytes, ...]:
        with self._lock:
            entry = self._entry(job_id)
            if entry.job.status != JobState.SUCCEEDED:
                raise messages.not_ready(entry.job.status)
            if self._clock() >= entry.result_until:
                entry.scores.clear()
                raise messages.expired()
            if name not in entry.scores:
                raise messages.no_vector()
            return entry.scores[name]

    # -- workers ----------------------------------------------------------------------------------------------
    def claim(self, job_id: str, attempt: int, worker: str) -> Claim | None:
        with self._lock:
            self._forget_expired()
            entry = self._entries.get(job_id)
            if entry is None or entry.job.status != JobState.QUEUED or entry.job.attempt != attempt:
                return None
            entry.fence += 1
            entry.lease_until = self._clock() + self._policy.lease_seconds
            begun = Attempt(number=attempt, worker=worker, started_at=self._now())
            attempts = (*entry.job.attempts, begun)
            entry.change(status=JobState.RUNNING, started_at=begun.started_at, attempts=attempts)
            entry.tell(EventType.STARTED, begun.started_at)
            return Claim(job_id, attempt, entry.fence, worker, entry.spec)

    def renew(self, claim: Claim) -> bool:
        with self._lock:
            entry = self._owned(claim)
            entry.lease_until = self._clock() + self._policy.lease_seconds
            return entry.job.status == JobState.CANCELLING

    def progress(self, claim: Claim, progress: Progress) -> bool:
        with self._lock:
            cancelling = self.renew(claim)
            entry, now = self._owned(claim), self._now()
            if entry.job.progress is None or entry.job.progress.phase != progress.phase:
                entry.tell(EventType.PHASE, now, progress.phase)
            entry.change(progress=progress.model_copy(update={"updated_at": now}))
            return cancelling

    def stage(self, claim: Claim, name: str, chunks: Iterable[bytes]) -> None:
        self._owned(claim)
        stored = tuple(rechunk(chunks))
        with self._lock:
            self._owned(claim).scores[name] = stored

    def commit(self, claim: Claim, manifest: Manifest) -> None:
        with self._lock:
            if self._ended_before(claim, "succeeded", "cancelled"):
                return
            entry = self._owned(claim)
            if entry.job.status == JobState.CANCELLING:
                self._end(entry, JobState.CANCELLED)
                return
            if not set(manifest.staged) <= entry.scores.keys():
                raise messages.not_staged()
            lifetime = min(self._policy.result_ttl_seconds, self._policy.record_ttl_seconds)
            entry.result_until = self._clock() + lifetime
            entry.change(result=manifest)
            for total, amount in of_result(claim.spec.solver.kind, manifest).items():
                self._totals[total] += amount
            self._end(entry, JobState.SUCCEEDED)

    def fail(self, claim: Claim, error: JobError) -> None:
        with self._lock:
            if not self._ended_before(claim, "failed"):
                entry = self._owned(claim)
                entry.change(error=error)
                self._end(entry, JobState.FAILED)

    def cancelled(self, claim: Claim) -> None:
        with self._lock:
            if self._ended_before(claim, "cancelled"):
                return
            entry = self._owned(claim)
            if entry.job.status == JobState.RUNNING:
                raise messages.not_cancelling()
            self._end(entry, JobState.CANCELLED)

    # -- upkeep -----------------------------------------------------------------------------------------------
    def reconcile(self) -> Reconciled:
        with self._lock:
            self._forget_expired()
            requeued, failed, rings = [], [], []
            for job_id, entry in sorted(self._entries.items()):
                if entry.job.status in LEASED and self._clock() >= entry.lease_until:
                    self._take_away(entry)
                    if entry.job.status == JobState.QUEUED:
                        requeued.append(job_id)
                    elif entry.job.status == JobState.FAILED:
                        failed.append(job_id)
                if entry.job.status == JobState.QUEUED and self._clock() >= entry.ring_due:
                    entry.ring_due = self._clock() + self._policy.ring_again_seconds * 2 ** min(entry.rings, 4)
                    entry.rings += 1
                    rings.append(Ring(job_id, entry.job.attempt))
            return Reconciled(tuple(rings), tuple(requeued), tuple(failed))

    def ping(self) -> None:
        """Memory always answers."""

    def counts(self) -> Counts:
        with self._lock:
            self._forget_expired()
            entries = self._entries.values()
            states = Counter(entry.job.status for entry in entries)
            since = min((e.queued_at for e in entries if e.job.status == JobState.QUEUED), default=self._clock())
            return Counts({s: states[s] for s in JobState}, self._clock() - since, dict(self._totals))

    def close(self) -> None:
        """Nothing to give back."""

    # -- the rules behind them --------------------------------------------------------------------------------
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _entry(self, job_id: str) -> Entry:
        with self._lock:
            self._forget_expired()
            if job_id not in self._entries:
                raise messages.no_job()
            return self._entries[job_id]

    def _owned(self, claim: Claim) -> Entry:
        entry = self._entries.get(claim.job_id)
        if entry is None or entry.fence != claim.fence or entry.job.status not in LEASED:
            raise LeaseLost("the lease of this attempt was taken away: its writes are refused")
        return entry

    def _ended_before(self, claim: Claim, *outcomes: str) -> bool:
        """Whether this claim's own worker already said so: a repeated call is no error."""
        entry = self._entries.get(claim.job_id)
        if entry is None or entry.fence != claim.fence or not entry.job.status.terminal:
            return False
        return entry.job.attempts[-1].outcome in outcomes

    def _end(self, entry: Entry, status: JobState) -> None:
        entry.close_attempt(status.value, self._now())
        self._finish(entry, status)

    def _finish(self, entry: Entry, status: JobState) -> None:
        """The one way into a terminal state."""
        if status != JobState.SUCCEEDED:
            entry.scores.clear()
        entry.expires_at = self._clock() + self._policy.record_ttl_seconds
        entry.change(status=status, finished_at=self._now())
        entry.tell(EventType(status), self._now(), entry.job.error.code if entry.job.error else "")
        self._totals[f"{FINISHED}/{entry.spec.solver.kind}/{status}"] += 1

    def _take_away(self, entry: Entry) -> None:
        entry.close_attempt("lost", self._now())
        entry.tell(EventType.LEASE_LOST, self._now())
        self._totals[LEASE_LOST] += 1
        if entry.job.status == JobState.CANCELLING:
            self._finish(entry, JobState.CANCELLED)
        elif entry.job.attempt >= self._policy.max_attempts:
            entry.change(error=messages.worker_lost(entry.job.attempt))
            self._finish(entry, JobState.FAILED)
        else:
            entry.scores.clear()
            entry.rings, entry.ring_due, entry.queued_at = 0, self._clock(), self._clock()
            entry.change(status=JobState.QUEUED, attempt=entry.job.attempt + 1, progress=None)
            entry.tell(EventType.REQUEUED, self._now())

    def _forget_expired(self) -> None:
        now = self._clock()
        for job_id in [i for i, e in self._entries.items() if e.expires_at is not None and now >= e.expires_at]:
            self._forget(job_id)
        for key in [key for key, (_, _, until) in self._keys.items() if now >= until]:
            del self._keys[key]

    def _forget(self, job_id: str) -> None:
        key = self._entries.pop(job_id).idempotency
        if key is not None and self._keys.get(key, ("",))[0] == job_id:
            del self._keys[key]
