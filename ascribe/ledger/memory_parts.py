"""Shared work in memory: the parts of a running job."""

from __future__ import annotations

from collections.abc import Sequence

from ascribe.job import JobState
from ascribe.ledger import messages
from ascribe.ledger.memory_entry import Work
from ascribe.ledger.memory_reader import MemoryReader
from ascribe.ledger.values import Claim, Part, Standing


class MemoryParts(MemoryReader):
    """The part of :class:`ascribe.ledger.memory.MemoryLedger` that many workers of one job meet at."""

    def offer(self, claim: Claim, environment: str, parts: Sequence[str]) -> None:
        with self._lock:
            entry = self._owned(claim)
            token = entry.work.token if entry.work else 0
            entry.work = Work(environment, self._clock(), dict.fromkeys(parts, 0.0), token)

    def take(self, job_id: str, worker: str, environment: str, *, owner: Claim | None = None) -> Part | None:
        with self._lock:
            entry = self._owned(owner) if owner else self._entries.get(job_id)
            if entry is None or entry.job.status != JobState.RUNNING or entry.work is None:
                return None
            work = entry.work
            if work.environment != environment:
                raise messages.wrong_environment()
            name = work.next(self._clock(), self._policy.max_attempts, by_owner=owner is not None)
            if name is None:
                return None
            until = self._clock() + self._policy.lease_seconds
            return Part(job_id, entry.fence, name, work.hand_out(name, until), worker)

    def keep(self, part: Part) -> None:
        with self._lock:
            self._held(part).due[part.name] = self._clock() + self._policy.lease_seconds

    def finish(self, part: Part) -> None:
        with self._lock:
            work = self._work(part)
            if work.done.get(part.name) != part:
                del self._held(part).held[part.name], work.due[part.name]
                work.done[part.name] = part

    def drop(self, part: Part) -> None:
        with self._lock:
            work = self._held(part)
            del work.held[part.name]
            work.due = {part.name: 0.0, **{name: due for name, due in work.due.items() if name != part.name}}

    def standing(self, claim: Claim) -> Standing:
        with self._lock:
            work = self._owned(claim).work
            if work is None:
                return Standing(0, 0, 0)
            open_ = len(work.open(self._clock())) + len(work.reserved())
            return Standing(open_, len(work.due) - open_, len(work.done))

    def finished_parts(self, claim: Claim, after: int = 0) -> Sequence[tuple[str, str]]:
        with self._lock:
            work = self._owned(claim).work
            return [(part.name, part.worker) for part in work.done.values()][after:] if work else []

    def _work(self, part: Part) -> Work:
        entry = self._entries.get(part.job_id)
        if entry is None or entry.fence != part.fence or entry.job.status != JobState.RUNNING or entry.work is None:
            raise messages.lease_lost()
        return entry.work

    def _held(self, part: Part) -> Work:
        work = self._work(part)
        if work.held.get(part.name) != part.token:
            raise messages.lease_lost()
        return work
