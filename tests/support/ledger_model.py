"""What a ledger should say of one job, in as few words as it can be said: the model of the state machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from ascribe.job import Job, JobState
from ascribe.ledger.base import Claim, Part, Policy, Pulse, Standing, model_key
from ascribe.spec import JobSpec

LEASED = (JobState.RUNNING, JobState.CANCELLING)


@dataclass
class PartModel:
    due: float = 0
    """When its lease ends; in the past while it is open."""
    takes: int = 0
    token: int | None = None
    """Of whoever holds it, or finished it."""
    done: bool = False


@dataclass
class WorkModel:
    environment: str
    call_due: float
    parts: dict[str, PartModel]
    calls: int = 0
    finished: list[tuple[str, str]] = field(default_factory=list)

    def open(self, now: float) -> dict[str, PartModel]:
        return {name: part for name, part in self.parts.items() if not part.done and part.due <= now}

    def unfinished(self) -> bool:
        return any(not part.done for part in self.parts.values())

    def standing(self, now: float) -> Standing:
        opened, done = len(self.open(now)), len(self.finished)
        return Standing(opened, len(self.parts) - opened - done, done)


@dataclass
class Model:
    spec: JobSpec
    policy: Policy
    ring_due: float
    waits_from: float
    status: JobState = JobState.QUEUED
    attempt: int = 1
    fence: int = 0
    lost: int = 0
    rings: int = 0
    passed: bool = False
    owner: Claim | None = None
    """The last claim, unless its attempt was taken away or handed back."""
    lease_until: float = 0
    ended_at: float = 0
    work: WorkModel | None = None
    last_token: int = 0
    """Of this fence."""
    pulse: Pulse | None = None
    seen: Job | None = None
    final: Job | None = None

    def key(self) -> tuple[str, str, str]:
        return self.spec.queue, self.spec.priority, model_key(self.spec.model)

    def owns(self, claim: Claim) -> bool:
        return self.owner is claim and self.status in LEASED

    def holds(self, part: Part) -> bool:
        """Whether the part's holder may still keep, finish and drop it."""
        return self._is_of(part, done=False)

    def finished(self, part: Part) -> bool:
        return self._is_of(part, done=True)

    def _is_of(self, part: Part, *, done: bool) -> bool:
        if self.status != JobState.RUNNING or self.fence != part.fence or self.work is None:
            return False
        known = self.work.parts.get(part.name)
        return known is not None and (known.token, known.done) == (part.token, done)

    def part(self, part: Part) -> PartModel:
        assert self.work is not None
        return self.work.parts[part.name]

    def finish(self, part: Part) -> None:
        assert self.work is not None
        if not self.part(part).done:
            self.part(part).done = True
            self.work.finished.append((part.name, part.worker))

    def begin(self, claim: Claim, now: float) -> None:
        self.status, self.fence, self.owner = JobState.RUNNING, claim.fence, claim
        self.lease_until, self.last_token = now + self.policy.lease_seconds, 0

    def end(self, status: JobState, now: float) -> None:
        self.status, self.ended_at, self.work = status, now, None

    def lose(self, now: float) -> None:
        self.owner, self.lost = None, self.lost + 1
        if self.status == JobState.CANCELLING:
            self.end(JobState.CANCELLED, now)
        elif self.lost == self.policy.max_attempts:
            self.end(JobState.FAILED, now)
        else:
            self.queue_again(now + self.policy.retry_backoff_seconds * 2 ** (self.lost - 1))

    def queue_again(self, at: float) -> None:
        self.status, self.attempt, self.owner, self.work = JobState.QUEUED, self.attempt + 1, None, None
        self.ring_due, self.waits_from, self.rings = at, at, 0

    def expired(self, now: float) -> bool:
        return self.status.terminal and now >= self.ended_at + self.policy.record_ttl_seconds
