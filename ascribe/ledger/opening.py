"""The ledger a process works with, made from its settings."""

from __future__ import annotations

from ascribe.ledger.base import Policy
from ascribe.ledger.redis import RedisLedger
from ascribe.settings import Settings


def open_ledger(settings: Settings) -> RedisLedger:
    """Connects at the first use, so that a process can start before Redis does."""
    policy = Policy(
        lease_seconds=settings.lease_seconds,
        ring_again_seconds=settings.ring_again_seconds,
        max_attempts=settings.max_attempts,
        retry_backoff_seconds=settings.retry_backoff_seconds,
        max_queued_jobs=settings.max_queued_jobs,
        result_ttl_seconds=settings.result_ttl_seconds,
        record_ttl_seconds=settings.record_ttl_seconds,
        idempotency_ttl_seconds=settings.idempotency_ttl_seconds,
    )
    return RedisLedger(
        settings.redis_url, tenant=settings.tenant, policy=policy, timeout_seconds=settings.redis_timeout_seconds
    )
