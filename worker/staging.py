"""A job's results on their way into the ledger, under the attempt's fence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import stamina

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Claim, Ledger

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Insist:
    """Asks the ledger again while Redis is away, up to the lease; the work of hours must not die of a restart."""

    lease_seconds: float

    def __call__(self, ask: Callable[[], T]) -> T:
        return stamina.RetryingCaller(timeout=self.lease_seconds, attempts=None)(QueueUnavailable, ask)


@dataclass(frozen=True, slots=True)
class Staging:
    """The sink of a worker: see :class:`worker.pipeline.Sink`."""

    claim: Claim
    ledger: Ledger
    insist: Insist

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        held = list(chunks)
        self.insist(lambda: self.ledger.stage(self.claim, name, held))

    def announce(self, gradient_fingerprint: str, rows: int) -> None:
        self.insist(lambda: self.ledger.announce_gradients(gradient_fingerprint, rows))
