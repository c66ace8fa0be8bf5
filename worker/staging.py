"""A job's results on their way into the ledger, under the attempt's fence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import stamina

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Claim, Ledger


@dataclass(frozen=True, slots=True)
class Insist:
    """Retries a ledger write while Redis is away, up to the lease; the work of hours must not die of a restart."""

    lease_seconds: float

    def __call__(self, write: Callable[[], None]) -> None:
        for attempt in stamina.retry_context(on=QueueUnavailable, timeout=self.lease_seconds, attempts=None):
            with attempt:
                write()


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
