"""When the service may be called ready."""

from __future__ import annotations

from ascribe.ledger.base import Ledger
from service.health.schemas import Readiness


def readiness(ledger: Ledger) -> Readiness:
    """Ready means that a job can be recorded. Raises QueueUnavailable."""
    ledger.ping()
    return Readiness(workers=len(ledger.workers()))
