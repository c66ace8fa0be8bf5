"""What workers say of themselves, kept in memory until its time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ascribe.ledger.values import Policy, WorkerInfo


class MemoryWorkers:
    """The part of :class:`ascribe.ledger.memory.MemoryLedger` that knows no jobs."""

    def __init__(self, policy: Policy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}
        self._gradients: dict[str, tuple[int, float]] = {}
        self._turns: dict[str, float] = {}

    def register_worker(self, info: WorkerInfo, ttl_seconds: float) -> None:
        self._workers[info.worker] = (info, self._clock() + ttl_seconds)

    def workers(self) -> Sequence[WorkerInfo]:
        return [info for _, (info, until) in sorted(self._workers.copy().items()) if self._clock() < until]

    def announce_gradients(self, gradient_fingerprint: str, rows: int) -> None:
        self._gradients[gradient_fingerprint] = (rows, self._clock() + self._policy.record_ttl_seconds)

    def announced_gradients(self, gradient_fingerprint: str) -> int | None:
        rows, until = self._gradients.get(gradient_fingerprint, (0, 0.0))
        return rows if self._clock() < until else None

    def take_turn(self, task: str, seconds: float) -> bool:
        if self._clock() < self._turns.get(task, 0.0):
            return False
        self._turns[task] = self._clock() + seconds
        return True
