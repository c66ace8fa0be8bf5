"""The ledger in Redis or Valkey. Every change is one Lua script; the key layout is on top of common.lua."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count

from ascribe.job import Job, JobError, Progress
from ascribe.ledger import messages
from ascribe.ledger.chunks import rechunk
from ascribe.ledger.redis_client import answering, kept, ms
from ascribe.ledger.redis_parts import RedisParts
from ascribe.ledger.redis_reader import LAYOUT as LAYOUT
from ascribe.ledger.redis_reader import WORKER_INFO, digest
from ascribe.ledger.redis_record import pairs, to_calls, to_fields, to_job, to_ring
from ascribe.ledger.totals import of_result
from ascribe.ledger.values import (
    MAX_BACKOFF_SECONDS,
    RUNG_AGAIN,
    Claim,
    Created,
    IdempotencyKey,
    Reconciled,
    WorkerInfo,
    model_key,
)
from ascribe.result import Manifest
from ascribe.spec import JobSpec

RECONCILE_BATCH = 500
"""Jobs one pass takes of each kind: a script must not hold the server for long."""


class RedisLedger(RedisParts):
    """See :class:`ascribe.ledger.base.Ledger`. Safe to share between threads; not across a fork."""

    # -- callers ----------------------------------------------------------------------------------------------
    def create(
        self, job_id: str, spec: JobSpec, idempotency: IdempotencyKey | None = None, *, retry_of: str | None = None
    ) -> Created:
        outcome, *record = self._scripts.run(
            "create",
            job_id,
            spec.model_dump_json(),
            digest(idempotency) if idempotency else "",
            idempotency.fingerprint if idempotency else "",
            ms(self._policy.idempotency_ttl_seconds),
            self._policy.max_queued_jobs,
            spec.queue,
            spec.priority,
            model_key(spec.model),
            *to_fields(spec, retry_of),
        )
        if outcome == b"reused":
            raise messages.idempotency_reused()
        if outcome == b"full":
            raise messages.queue_full(self._policy.max_queued_jobs)
        return Created(to_job(pairs(record[0])), replayed=outcome == b"replayed")

    def request_cancel(self, job_id: str) -> Job:
        record = self._scripts.run("cancel", job_id, ms(self._policy.record_ttl_seconds))
        if record is None:
            raise messages.no_job()
        return to_job(pairs(record))

    def delete(self, job_id: str) -> None:
        outcome = self._scripts.run("delete", job_id)
        if outcome == b"no_job":
            raise messages.no_job()
        if outcome == b"not_ended":
            raise messages.not_ended()

    # -- workers ----------------------------------------------------------------------------------------------
    def claim(self, job_id: str, attempt: int, worker: str, *, warm: str = "") -> Claim | None:
        answer = self._scripts.run("claim", job_id, attempt, worker, ms(self._policy.lease_seconds), warm)
        if answer is None:
            return None
        claimed, its_attempt, fence, spec = answer
        return Claim(claimed.decode(), its_attempt, fence, worker, JobSpec.model_validate_json(spec))

    def renew(self, claim: Claim) -> bool:
        return self._renew(claim, "")

    def progress(self, claim: Claim, progress: Progress) -> bool:
        return self._renew(claim, progress.model_dump_json())

    def _renew(self, claim: Claim, progress: str) -> bool:
        lease = ms(self._policy.lease_seconds)
        status: bytes = kept(self._scripts.run("renew", claim.job_id, claim.fence, lease, progress))
        return status == b"cancelling"

    def stage(self, claim: Claim, name: str, chunks: Iterable[bytes]) -> None:
        ttl = ms(self._policy.result_ttl_seconds)
        for index, chunk in zip(count(), rechunk(chunks), strict=False):
            kept(self._scripts.run("stage", claim.job_id, claim.fence, name, index, chunk, ttl))

    def commit(self, claim: Claim, manifest: Manifest) -> None:
        totals = of_result(claim.spec.solver.kind, manifest)
        self._end(claim, "succeeded", manifest.model_dump_json(), json.dumps(totals), manifest.staged)

    def fail(self, claim: Claim, error: JobError) -> None:
        self._end(claim, "failed", error.model_dump_json())

    def cancelled(self, claim: Claim) -> None:
        self._end(claim, "cancelled")

    def hand_back(self, claim: Claim) -> None:
        self._end(claim, "handed_back")

    def _end(self, claim: Claim, outcome: str, document: str = "", totals: str = "", names: Iterable[str] = ()) -> None:
        policy = self._policy
        # Scores must not outlive the record that leads to them.
        result_ttl = min(policy.result_ttl_seconds, policy.record_ttl_seconds)
        times = ms(result_ttl), ms(policy.record_ttl_seconds)
        owner = claim.job_id, claim.attempt, claim.fence
        answer = kept(self._scripts.run("end", *owner, outcome, document, *times, totals, *names))
        if answer == b"not_staged":
            raise messages.not_staged()
        if answer == b"not_cancelling":
            raise messages.not_cancelling()

    def mourn(self, job_id: str, attempt: int, worker: str) -> None:
        self._scripts.run("mourn", job_id, attempt, worker)

    # -- upkeep -----------------------------------------------------------------------------------------------
    def reconcile(self) -> Reconciled:
        policy = self._policy
        rings, requeued, failed, calls = self._scripts.run(
            "reconcile",
            ms(policy.ring_again_seconds),
            round(policy.retry_backoff_seconds * 1000),
            ms(MAX_BACKOFF_SECONDS),
            policy.max_attempts,
            ms(policy.record_ttl_seconds),
            messages.worker_lost("{attempts}").model_dump_json(),
            RECONCILE_BATCH,
            RUNG_AGAIN,
        )
        return Reconciled(
            rings=tuple(map(to_ring, rings)),
            requeued=tuple(job_id.decode() for job_id in requeued),
            failed=tuple(job_id.decode() for job_id in failed),
            calls=tuple(call for entry in calls for call in to_calls(entry)),
        )

    def register_worker(self, info: WorkerInfo, ttl_seconds: float) -> None:
        self._scripts.run("register", info.worker, WORKER_INFO.dump_json(info), ms(ttl_seconds))

    def announce_gradients(self, gradient_fingerprint: str, rows: int) -> None:
        self._scripts.run("announce", gradient_fingerprint, rows, ms(self._policy.record_ttl_seconds))

    def take_turn(self, task: str, seconds: float) -> bool:
        with answering():
            return bool(self._redis.set(self._key("turn", task), 1, nx=True, px=ms(seconds)))
