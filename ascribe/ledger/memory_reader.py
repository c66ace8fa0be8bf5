"""What is read of a ledger in memory: records, events, lists, results."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from ascribe.event import Event
from ascribe.job import Job, JobState
from ascribe.ledger import messages
from ascribe.ledger.chunks import pieces
from ascribe.ledger.memory_entry import LEASED, Entry, matches
from ascribe.ledger.memory_workers import MemoryWorkers
from ascribe.ledger.values import QUEUES, Claim, Counts, IdempotencyKey, JobFilter, Page, Policy, Pulse, QueueCounts
from ascribe.spec import JobSpec, Queue


class MemoryReader(MemoryWorkers):
    """The part of :class:`ascribe.ledger.memory.MemoryLedger` that changes nothing but what time changes."""

    def __init__(self, policy: Policy, clock: Callable[[], float]) -> None:
        super().__init__(policy, clock)
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._keys: dict[str, tuple[str, str, float]] = {}
        self._totals: defaultdict[str, float] = defaultdict(float)

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

    def ping(self) -> None:
        """Memory always answers."""

    def counts(self) -> Counts:
        with self._lock:
            self._forget_expired()
            states = Counter(entry.job.status for entry in self._entries.values())
            queues = {queue: self._count(queue) for queue in QUEUES}
            return Counts({status: states[status] for status in JobState}, queues, dict(self._totals))

    def _count(self, queue: Queue) -> QueueCounts:
        entries = [entry for entry in self._entries.values() if entry.spec.queue == queue]
        since = [entry.queued_at for entry in entries if entry.job.status == JobState.QUEUED]
        return QueueCounts(
            queued=len(since),
            running=sum(entry.job.status in LEASED for entry in entries),
            oldest_queued_seconds=self._clock() - min(since, default=self._clock()),
        )

    def close(self) -> None:
        """Nothing to give back."""

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
            raise messages.lease_lost()
        return entry

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
