"""Specs, manifests and ledgers small enough for tests of the ledger."""

from __future__ import annotations

import time
import uuid
from typing import Any

import redis

from ascribe.errors import InternalError
from ascribe.job import JobError, Phase, Progress
from ascribe.ledger.base import Claim, IdempotencyKey, Ledger, Policy, Ring
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.memory import MemoryLedger
from ascribe.ledger.redis import LAYOUT, RedisLedger
from ascribe.result import Diagnostics, Histogram, Manifest, Provenance, Summary
from ascribe.spec import JobSpec
from ascribe.status import SolveStatus

LEASE_SECONDS = 0.15
POLICY = Policy(lease_seconds=LEASE_SECONDS, ring_again_seconds=0.3, max_attempts=3, retry_backoff_seconds=0)
PROGRESS = Progress(phase=Phase.SOLVING, done=1, total=4, fraction=0.25)
ERROR = JobError.of(InternalError("a fault of ours"))


class MemoryBench:
    """A ledger and its time: here time is a number."""

    def __init__(self, policy: Policy) -> None:
        self._seconds = time.time()
        self.ledger: Ledger = MemoryLedger(policy, clock=lambda: self._seconds)

    def advance(self, seconds: float) -> None:
        self._seconds += seconds


class RedisBench:
    """A ledger on a tenant of its own: here time has to pass."""

    def __init__(self, policy: Policy, url: str) -> None:
        self.tenant = f"t-{uuid.uuid4().hex[:12]}"
        self.ledger: Ledger = RedisLedger(url, tenant=self.tenant, policy=policy, timeout_seconds=3)

    def advance(self, seconds: float) -> None:
        time.sleep(seconds + 0.01)


class TimelessRedisBench(RedisBench):
    """Here time passes by moving all that is kept of it into the past: as long as it must be, and at once."""

    def __init__(self, policy: Policy, url: str, server: redis.Redis) -> None:
        super().__init__(policy, url)
        self.prefix = f"{{ascribe:{self.tenant}}}:{LAYOUT}:"
        self._shift = server.register_script(_SHIFT)

    def advance(self, seconds: float) -> None:
        self._shift(args=[self.prefix + "*", round(seconds * 1000)])


_SHIFT = """
local by = tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'zset' then
    local entries = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      local score = tonumber(entries[i + 1])
      -- Smaller ones are places, not times.
      if score > 1e9 and score < math.huge then redis.call('ZADD', key, score - by, entries[i]) end
    end
  elseif kind == 'hash' then
    local till = redis.call('HGET', key, 'result_until')
    if till then redis.call('HSET', key, 'result_until', till - by) end
  end
  local expires = redis.call('PEXPIRETIME', key)
  if expires > 0 then redis.call('PEXPIREAT', key, expires - by) end
end
"""

Bench = MemoryBench | RedisBench


def spec(base: str = "minilm", **fields: Any) -> JobSpec:
    rows = {"source": {"kind": "inline", "rows": [{"text": "how do I undo a commit", "label": "coding"}]}}
    return JobSpec.model_validate(
        {
            "model": {"base": base, "adapter": "topics-lora"},
            "train": rows,
            "validation": rows,
            "curvature": {"kind": "gfim"},
            "solver": {"kind": "schulz"},
            **fields,
        }
    )


def manifest(*vectors: str) -> Manifest:
    return Manifest(
        train_rows=2,
        validation_rows=1,
        parameters=3,
        vectors=vectors,
        diagnostics=Diagnostics(
            status=SolveStatus.CONVERGED,
            advice=SolveStatus.CONVERGED.advice,
            worst_relative_residual=1e-7,
            largest_condition_bound=10.0,
            iterations=8,
            products=16,
            blocks=(),
            seconds={"total": 0.5},
            peak_memory_bytes=1,
            cache={},
        ),
        provenance=Provenance(
            base_sha256="a",
            adapter_sha256="b",
            train_sha256="c",
            validation_sha256="d",
            gradient_fingerprint="e",
            versions={"torch": "2.13"},
            attention="sdpa",
            token_budget=4096,
            device="cpu",
            seed=0,
        ),
        summary=Summary(
            rows=2,
            minimum=-1,
            median=0,
            maximum=1,
            share_negative=0.5,
            histogram=Histogram(edges=(-1, 1), counts=(2,)),
            by_label=(),
            proponents=(),
            opponents=(),
        ),
    )


def create(ledger: Ledger, job_spec: JobSpec | None = None, idempotency: IdempotencyKey | None = None) -> str:
    return ledger.create(new_job_id(), job_spec or spec(), idempotency).job.id


def claim(ledger: Ledger, job_id: str, attempt: int = 1, worker: str = "w1") -> Claim:
    claimed = ledger.claim(job_id, attempt, worker)
    assert claimed is not None
    return claimed


def running(ledger: Ledger) -> Claim:
    return claim(ledger, create(ledger))


def succeed(ledger: Ledger, owner: Claim, **vectors: bytes) -> None:
    for name, data in vectors.items():
        ledger.stage(owner, name, [data])
    ledger.commit(owner, manifest(*vectors))


def rings(ledger: Ledger) -> list[Ring]:
    return list(ledger.reconcile().rings)
