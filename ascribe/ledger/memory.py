"""The ledger in this process's memory: for tests and for one-process use. Same contract, same suite as Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ascribe.event import EventType
from ascribe.job import Attempt, Job, JobError, JobState, Progress
from ascribe.ledger import messages
from ascribe.ledger.chunks import rechunk
from ascribe.ledger.memory_entry import LEASED, Entry
from ascribe.ledger.memory_parts import MemoryParts
from ascribe.ledger.totals import FINISHED, HANDED_BACK, LEASE_LOST, of_result
from ascribe.ledger.values import (
    MAX_BACKOFF_SECONDS,
    MOST_DOUBLINGS,
    RUNG_AGAIN,
    Call,
    Claim,
    Created,
    IdempotencyKey,
    Policy,
    Reconciled,
    Ring,
    model_key,
)
from ascribe.result import Manifest
from ascribe.spec import JobSpec
from ascribe.view import SpecView


class MemoryLedger(MemoryParts):
    """See :class:`ascribe.ledger.base.Ledger`. ``clock`` gives seconds since the epoch."""

    def __init__(self, policy: Policy, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(policy, clock)

    # -- callers ----------------------------------------------------------------------------------------------
    def create(
        self, job_id: str, spec: JobSpec, idempotency: IdempotencyKey | None = None, *, retry_of: str | None = None
    ) -> Created:
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
            job = Job(
                id=job_id,
                revision=1,
                status=JobState.QUEUED,
                spec=view,
                created_at=now,
                attempt=1,
                retry_of=retry_of,
            )
            self._entries[job_id] = entry = Entry(job, spec)
            self._enqueue(entry, self._clock())
            entry.tell(EventType.CREATED, now)
            if idempotency:
                entry.idempotency = idempotency.key
                until = self._clock() + self._policy.idempotency_ttl_seconds
                self._keys[idempotency.key] = (job_id, idempotency.fingerprint, until)
            return Created(job, replayed=False)

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

    # -- workers ----------------------------------------------------------------------------------------------
    def claim(self, job_id: str, attempt: int, worker: str, *, warm: str = "") -> Claim | None:
        with self._lock:
            self._forget_expired()
            entry = self._entries.get(job_id)
            if entry is None or entry.job.status != JobState.QUEUED or entry.job.attempt != attempt:
                return None
            entry = self._in_its_place(entry, warm) or entry
            entry.fence += 1
            entry.lease_until = self._clock() + self._policy.lease_seconds
            begun = Attempt(number=entry.job.attempt, worker=worker, started_at=self._now())
            attempts = (*entry.job.attempts, begun)
            entry.change(status=JobState.RUNNING, started_at=begun.started_at, attempts=attempts)
            entry.tell(EventType.STARTED, begun.started_at)
            return Claim(entry.job.id, begun.number, entry.fence, worker, entry.spec)

    def _in_its_place(self, entry: Entry, warm: str) -> Entry | None:
        """The first job to wait that a worker with this model should rather have."""
        if not warm or warm == model_key(entry.spec.model) or entry.passed:
            return None
        kind = (entry.spec.queue, entry.spec.priority, warm)
        waiting = [
            (other.waits_from, job_id)
            for job_id, other in self._entries.items()
            if other.job.status == JobState.QUEUED
            and other.waits_from <= self._clock()
            and (other.spec.queue, other.spec.priority, model_key(other.spec.model)) == kind
        ]
        if not waiting:
            return None
        entry.passed, entry.ring_due = True, self._clock()
        return self._entries[min(waiting)[1]]

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

    def hand_back(self, claim: Claim) -> None:
        with self._lock:
            if self._ended_before(claim, "handed_back", "cancelled"):
                return
            entry = self._owned(claim)
            if entry.job.status == JobState.CANCELLING:
                self._end(entry, JobState.CANCELLED)
                return
            entry.close_attempt("handed_back", self._now())
            entry.tell(EventType.HANDED_BACK, self._now())
            self._totals[HANDED_BACK] += 1
            self._next_attempt(entry, self._clock())

    def mourn(self, job_id: str, attempt: int, worker: str) -> None:
        with self._lock:
            entry = self._entries.get(job_id)
            if entry and entry.job.status in LEASED:
                last = entry.job.attempts[-1]
                if (last.number, last.worker) == (attempt, worker):
                    entry.lease_until = self._clock()

    # -- upkeep -----------------------------------------------------------------------------------------------
    def reconcile(self) -> Reconciled:
        with self._lock:
            self._forget_expired()
            requeued, failed, rings = [], [], []
            calls: list[Call] = []
            for job_id, entry in sorted(self._entries.items()):
                if entry.job.status in LEASED and self._clock() >= entry.lease_until:
                    self._lose(entry)
                    if entry.job.status == JobState.QUEUED:
                        requeued.append(job_id)
                    elif entry.job.status == JobState.FAILED:
                        failed.append(job_id)
                if entry.job.status == JobState.QUEUED and self._clock() >= entry.ring_due:
                    rings += self._ring(entry)
                calls += self._calls(entry)
            return Reconciled(tuple(rings), tuple(requeued), tuple(failed), tuple(calls))

    def _ring(self, entry: Entry) -> list[Ring]:
        if entry.rings and self._waiting_before(entry) >= RUNG_AGAIN:
            entry.ring_due = self._again(MOST_DOUBLINGS)
            return []
        entry.ring_due = self._again(entry.rings)
        entry.rings += 1
        return [Ring(entry.job.id, entry.job.attempt, entry.spec.queue, entry.spec.priority)]

    def _waiting_before(self, entry: Entry) -> int:
        place = (entry.queued_at, entry.job.id)
        return sum(
            other.job.status == JobState.QUEUED
            and other.spec.queue == entry.spec.queue
            and (other.queued_at, other.job.id) < place
            for other in self._entries.values()
        )

    def _calls(self, entry: Entry) -> list[Call]:
        work, spec = entry.work, entry.spec
        if entry.job.status != JobState.RUNNING or work is None or not work.due or self._clock() < work.call_due:
            return []
        work.call_due = self._again(work.calls)
        work.calls += 1
        live = [w for w in self.workers() if (w.queue, w.environment) == (spec.queue, work.environment)]
        return [Call(entry.job.id, spec.queue, spec.priority)] * min(len(work.open(self._clock())), len(live) - 1)

    def _again(self, sent: int) -> float:
        return self._clock() + self._policy.ring_again_seconds * 2.0 ** min(sent, MOST_DOUBLINGS)

    # -- the rules behind them --------------------------------------------------------------------------------
    def _ended_before(self, claim: Claim, *outcomes: str) -> bool:
        """Whether this claim's own worker already said so: a repeated call is no error."""
        entry = self._entries.get(claim.job_id)
        attempts = entry.job.attempts if entry else ()
        return any(one.number == claim.attempt and one.outcome in outcomes for one in attempts)

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

    def _lose(self, entry: Entry) -> None:
        entry.close_attempt("lost", self._now())
        entry.tell(EventType.LEASE_LOST, self._now())
        entry.lost += 1
        self._totals[LEASE_LOST] += 1
        if entry.job.status == JobState.CANCELLING:
            self._finish(entry, JobState.CANCELLED)
        elif entry.lost >= self._policy.max_attempts:
            entry.change(error=messages.worker_lost(entry.lost))
            self._finish(entry, JobState.FAILED)
        else:
            backoff = self._policy.retry_backoff_seconds * 2 ** (entry.lost - 1)
            self._next_attempt(entry, self._clock() + min(backoff, MAX_BACKOFF_SECONDS))

    def _next_attempt(self, entry: Entry, at: float) -> None:
        entry.scores.clear()
        entry.change(status=JobState.QUEUED, attempt=entry.job.attempt + 1, progress=None)
        self._enqueue(entry, at)
        entry.tell(EventType.REQUEUED, self._now())

    def _enqueue(self, entry: Entry, at: float) -> None:
        """Queued, to be rung and claimed from ``at`` on."""
        entry.rings, entry.queued_at, entry.ring_due, entry.waits_from = 0, self._clock(), at, at
