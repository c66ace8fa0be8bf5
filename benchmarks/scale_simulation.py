"""Many workers on one job's shards, event by event: who takes which shard when, who dies, and what waits for what.

The rules are the service's: a worker takes the next open shard, a shard whose worker died is taken again when its
lease has run out, every take and finish is a step of the one ledger, the store gives all workers together so many
bytes a second, and the coordinator alone solves in between.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Fleet:
    """``lives_seconds``: how long a worker lives, 0 for ever; a dead one is replaced after ``back_seconds``."""

    workers: int
    store_bytes: float
    """Bytes a second that the store gives to all workers together."""
    ledger_seconds: float
    """Of one step of the ledger, which does one at a time."""
    spread: float = 0.1
    """Standard deviation of a shard's seconds, as a share of them."""
    lives_seconds: float = 0.0
    back_seconds: float = 60.0
    lease_seconds: float = 60.0
    keep_every_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Shards:
    """A phase: so many shards, each with its seconds of work and its bytes from and to the store."""

    count: int
    work_seconds: float
    moved_bytes: float


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float
    again: int
    """Shards begun a second time."""
    ledger_busy: float
    """Share of the time in which the ledger was at work for this job."""
    store_busy: float


@dataclass(slots=True)
class _Shared:
    """Something that serves one after the other."""

    free_at: float = 0.0
    used: float = 0.0

    def use(self, now: float, seconds: float) -> float:
        """When it is done with this."""
        self.free_at = max(self.free_at, now) + seconds
        self.used += seconds
        return self.free_at


def simulate(phase: Shards, fleet: Fleet, seed: int = 0) -> Outcome:
    """One phase from its first shard to the barrier behind its last."""
    run = _Run(phase, fleet, Random(seed))  # noqa: S311 - reproducible, not secret
    while run.left:
        run.step()
    return Outcome(run.end, run.again, run.ledger.used / run.end, run.store.used / run.end)


class _Run:
    """Events in the order of time: a worker is free, has worked, or has moved its shard's bytes."""

    def __init__(self, phase: Shards, fleet: Fleet, random: Random) -> None:
        self._phase, self._fleet, self._random = phase, fleet, random
        self.ledger, self.store = _Shared(), _Shared()
        self.left, self.again, self.end = phase.count, 0, 0.0
        self._open = [(0.0, shard) for shard in range(phase.count)]
        self._events: list[tuple[float, int, str, int]] = []
        self._dies = {}
        for worker in range(fleet.workers):
            self._dies[worker] = self._life()
            self._then(0.0, worker, "free", -1)

    def step(self) -> None:
        now, worker, kind, shard = heapq.heappop(self._events)
        if self._dies[worker] <= now:
            self._die(worker, kind, shard)
        elif kind == "free":
            self._take(now, worker)
        elif kind == "worked":
            moved = self.store.use(now, self._phase.moved_bytes / self._fleet.store_bytes)
            self._then(moved, worker, "moved", shard)
        else:
            self.end = self.ledger.use(now, self._fleet.ledger_seconds)
            self.left -= 1
            self._then(self.end, worker, "free", -1)

    def _take(self, now: float, worker: int) -> None:
        if not self._open:  # all are taken: whoever holds one finishes it, or its lease brings it back
            self._then(now + 1.0, worker, "free", -1)
        elif self._open[0][0] > now:
            self._then(self._open[0][0], worker, "free", -1)
        else:
            _, shard = heapq.heappop(self._open)
            seconds = max(0.0, self._random.gauss(1.0, self._fleet.spread)) * self._phase.work_seconds
            self.ledger.used += seconds / self._fleet.keep_every_seconds * self._fleet.ledger_seconds
            taken = self.ledger.use(now, self._fleet.ledger_seconds)
            self._then(taken + seconds, worker, "worked", shard)

    def _die(self, worker: int, kind: str, shard: int) -> None:
        died = self._dies[worker]
        if kind != "free":
            self.again += 1
            heapq.heappush(self._open, (died + self._fleet.lease_seconds, shard))
        back = died + self._fleet.back_seconds
        self._dies[worker] = back + self._life()
        self._then(back, worker, "free", -1)

    def _then(self, at: float, worker: int, kind: str, shard: int) -> None:
        heapq.heappush(self._events, (at, worker, kind, shard))

    def _life(self) -> float:
        return self._random.expovariate(1 / self._fleet.lives_seconds) if self._fleet.lives_seconds else float("inf")
