"""The ledger in Redis or Valkey. Every change is one Lua script; the key layout is on top of common.lua."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any

from pydantic import TypeAdapter

from ascribe.errors import NotFound
from ascribe.event import Event
from ascribe.job import Job, JobError, JobState, Progress
from ascribe.ledger import messages
from ascribe.ledger.base import (
    Claim,
    Counts,
    Created,
    IdempotencyKey,
    JobFilter,
    LeaseLost,
    Page,
    Policy,
    Pulse,
    Reconciled,
    Ring,
    WorkerInfo,
)
from ascribe.ledger.chunks import CHUNK_BYTES, pieces, rechunk
from ascribe.ledger.redis_client import Scripts, answering, connect
from ascribe.ledger.redis_record import FILTER_FIELDS, PULSE_FIELDS, matches, pairs, to_event, to_job, to_pulse
from ascribe.ledger.totals import of_result
from ascribe.result import Manifest
from ascribe.spec import JobSpec
from ascribe.view import SpecView

LAYOUT = "2"
"""Part of every key: a release that lays out records in another way must not meet old ones."""
LIST_BATCH = 200
RANGE_BATCH = 32
"""Vectors one script takes a piece of: it copies a chunk of each, and must not hold the server for long."""
RECONCILE_BATCH = 500
"""Jobs one pass takes of each kind: a script must not hold the server for long."""

_WORKER_INFO = TypeAdapter(WorkerInfo)


class RedisLedger:
    """See :class:`ascribe.ledger.base.Ledger`. Safe to share between threads; not across a fork."""

    def __init__(self, url: str, *, tenant: str, policy: Policy, timeout_seconds: float) -> None:
        self._policy = policy
        self._prefix = f"{{ascribe:{tenant}}}:{LAYOUT}:"
        self._redis = connect(url, timeout_seconds)
        self._scripts = Scripts(self._redis, self._prefix)

    # -- callers ----------------------------------------------------------------------------------------------
    def create(self, job_id: str, spec: JobSpec, idempotency: IdempotencyKey | None = None) -> Created:
        outcome, *record = self._scripts.run(
            "create",
            job_id,
            spec.model_dump_json(),
            spec.model.base,
            spec.model.adapter or "",
            json.dumps(spec.labels),
            _digest(idempotency) if idempotency else "",
            idempotency.fingerprint if idempotency else "",
            _ms(self._policy.idempotency_ttl_seconds),
            self._policy.max_queued_jobs,
            SpecView.of(spec).model_dump_json(),
            spec.solver.kind,
            spec.query_of.job_id if spec.query_of else "",
        )
        if outcome == b"reused":
            raise messages.idempotency_reused()
        if outcome == b"full":
            raise messages.queue_full(self._policy.max_queued_jobs)
        return Created(to_job(pairs(record[0])), replayed=outcome == b"replayed")

    def replayed(self, idempotency: IdempotencyKey) -> Job | None:
        with answering():
            kept: Any = self._redis.get(self._key("idempotency", _digest(idempotency)))
        if kept is None:
            return None
        job_id, _, fingerprint = kept.decode().partition(" ")
        try:
            job = self.get(job_id)
        except NotFound:  # deleted or expired: the key is free again
            return None
        if fingerprint != idempotency.fingerprint:
            raise messages.idempotency_reused()
        return job

    def get(self, job_id: str) -> Job:
        with answering():
            fields: Any = self._redis.hgetall(self._key("job", job_id))
        if not fields:
            raise messages.no_job()
        return to_job({name.decode(): value for name, value in fields.items()})

    def spec(self, job_id: str) -> JobSpec:
        with answering():
            document: Any = self._redis.get(self._key("spec", job_id))
        if document is None:
            raise messages.no_job()
        return JobSpec.model_validate_json(document)

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        with answering():
            entries: Any = self._redis.xrange(self._key("events", job_id), f"({after}", count=limit)
            if not entries and not self._redis.exists(self._key("job", job_id)):
                raise messages.no_job()
        return [to_event(job_id, entry) for entry in entries]

    def pulses(self, job_ids: Sequence[str]) -> Sequence[Pulse | None]:
        with answering(), self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(self._key("job", job_id), PULSE_FIELDS)
            return [to_pulse(values) for values in pipeline.execute()]

    def list(self, job_filter: JobFilter, *, after: str | None = None, limit: int = 20) -> Page:
        found: list[Job] = []
        for job_id in self._matching(job_filter, after):
            if len(found) == limit:
                return Page(tuple(found), has_more=True)
            try:
                found.append(self.get(job_id))
            except NotFound:
                continue  # deleted or expired since it was matched
        return Page(tuple(found), has_more=False)

    def _matching(self, job_filter: JobFilter, after: str | None) -> Iterator[str]:
        """Ids newest first, fetched and checked a batch at a time."""
        upper = b"+" if after is None else b"(" + after.encode()
        while True:
            with answering():
                ids: Any = self._redis.zrevrangebylex(self._key("jobs"), upper, "-", 0, LIST_BATCH)
                pipeline = self._redis.pipeline(transaction=False)
                for job_id in ids:
                    pipeline.hmget(self._key("job", job_id.decode()), FILTER_FIELDS)
                records: list[Any] = pipeline.execute()
            for job_id, values in zip(ids, records, strict=True):
                if matches(job_filter, values):
                    yield job_id.decode()
            if len(ids) < LIST_BATCH:
                return
            upper = b"(" + ids[-1]

    def request_cancel(self, job_id: str) -> Job:
        record = self._scripts.run("cancel", job_id, _ms(self._policy.record_ttl_seconds))
        if record is None:
            raise messages.no_job()
        return to_job(pairs(record))

    def delete(self, job_id: str) -> None:
        outcome = self._scripts.run("delete", job_id)
        if outcome == b"no_job":
            raise messages.no_job()
        if outcome == b"not_ended":
            raise messages.not_ended()

    def read(self, job_id: str, name: str) -> Iterator[bytes]:
        total, first = self._chunk(job_id, name, 0)

        def chunks() -> Iterator[bytes]:
            if first:
                yield first
            for index in range(1, total):
                yield self._chunk(job_id, name, index)[1]

        return chunks()

    def read_range(self, job_id: str, names: Sequence[str], offset: int, length: int) -> Sequence[bytes]:
        found = []
        for batch in (names[start : start + RANGE_BATCH] for start in range(0, len(names), RANGE_BATCH)):
            parts = [self._parts(job_id, batch, *piece)[1] for piece in pieces(offset, length)]
            found += [b"".join(of_vector) for of_vector in zip(*parts, strict=True)]
        return found

    def _chunk(self, job_id: str, name: str, index: int) -> tuple[int, bytes]:
        total, (chunk,) = self._parts(job_id, [name], index, 0, CHUNK_BYTES)
        return total, chunk

    def _parts(
        self, job_id: str, names: Sequence[str], index: int, begin: int, end: int
    ) -> tuple[int, Sequence[bytes]]:
        """Bytes ``begin`` to ``end`` of chunk ``index`` of each vector, and how many chunks the first one has."""
        outcome, *answer = self._scripts.run("read", job_id, index, begin + 1, end, *names)
        match outcome:
            case b"ok":
                return answer[0], answer[1:]
            case b"not_ready":
                raise messages.not_ready(JobState(answer[0].decode()))
            case b"expired":
                raise messages.expired()
            case b"no_vector":
                raise messages.no_vector()
            case _:
                raise messages.no_job()

    # -- workers ----------------------------------------------------------------------------------------------
    def claim(self, job_id: str, attempt: int, worker: str) -> Claim | None:
        answer = self._scripts.run("claim", job_id, attempt, worker, _ms(self._policy.lease_seconds))
        if answer is None:
            return None
        fence, spec = answer
        return Claim(job_id, attempt, fence, worker, JobSpec.model_validate_json(spec))

    def renew(self, claim: Claim) -> bool:
        return self._renew(claim, "")

    def progress(self, claim: Claim, progress: Progress) -> bool:
        return self._renew(claim, progress.model_dump_json())

    def _renew(self, claim: Claim, progress: str) -> bool:
        lease = _ms(self._policy.lease_seconds)
        status: bytes = _kept(self._scripts.run("renew", claim.job_id, claim.fence, lease, progress))
        return status == b"cancelling"

    def stage(self, claim: Claim, name: str, chunks: Iterable[bytes]) -> None:
        ttl = _ms(self._policy.result_ttl_seconds)
        for index, chunk in zip(count(), rechunk(chunks), strict=False):
            _kept(self._scripts.run("stage", claim.job_id, claim.fence, name, index, chunk, ttl))

    def commit(self, claim: Claim, manifest: Manifest) -> None:
        totals = of_result(claim.spec.solver.kind, manifest)
        self._end(claim, JobState.SUCCEEDED, manifest.model_dump_json(), json.dumps(totals), manifest.staged)

    def fail(self, claim: Claim, error: JobError) -> None:
        self._end(claim, JobState.FAILED, error.model_dump_json())

    def cancelled(self, claim: Claim) -> None:
        self._end(claim, JobState.CANCELLED)

    def _end(
        self, claim: Claim, outcome: JobState, document: str = "", totals: str = "", names: Iterable[str] = ()
    ) -> None:
        policy = self._policy
        # Scores must not outlive the record that leads to them.
        result_ttl = min(policy.result_ttl_seconds, policy.record_ttl_seconds)
        times = _ms(result_ttl), _ms(policy.record_ttl_seconds)
        answer = _kept(self._scripts.run("end", claim.job_id, claim.fence, outcome, document, *times, totals, *names))
        if answer == b"not_staged":
            raise messages.not_staged()
        if answer == b"not_cancelling":
            raise messages.not_cancelling()

    # -- upkeep -----------------------------------------------------------------------------------------------
    def reconcile(self) -> Reconciled:
        rings, requeued, failed = self._scripts.run(
            "reconcile",
            _ms(self._policy.ring_again_seconds),
            self._policy.max_attempts,
            _ms(self._policy.record_ttl_seconds),
            messages.worker_lost("{attempts}").model_dump_json(),
            RECONCILE_BATCH,
        )
        return Reconciled(
            rings=tuple(Ring(job_id.decode(), attempt) for job_id, attempt in rings),
            requeued=tuple(job_id.decode() for job_id in requeued),
            failed=tuple(job_id.decode() for job_id in failed),
        )

    def ping(self) -> None:
        with answering():
            self._redis.ping()

    def counts(self) -> Counts:
        jobs, oldest_ms, totals = self._scripts.run("counts", *JobState)
        return Counts(
            dict(zip(JobState, jobs, strict=True)),
            oldest_ms / 1000,
            {name: float(value) for name, value in pairs(totals).items()},
        )

    def register_worker(self, info: WorkerInfo, ttl_seconds: float) -> None:
        self._scripts.run("register", info.worker, _WORKER_INFO.dump_json(info), _ms(ttl_seconds))

    def workers(self) -> Sequence[WorkerInfo]:
        found = [_WORKER_INFO.validate_json(entry) for entry in self._scripts.run("workers")]
        return sorted(found, key=lambda info: info.worker)

    def announce_gradients(self, gradient_fingerprint: str, rows: int) -> None:
        self._scripts.run("announce", gradient_fingerprint, rows, _ms(self._policy.record_ttl_seconds))

    def announced_gradients(self, gradient_fingerprint: str) -> int | None:
        with answering():
            rows: Any = self._redis.get(self._key("gradients", gradient_fingerprint))
        return None if rows is None else int(rows)

    def take_turn(self, task: str, seconds: float) -> bool:
        with answering():
            return bool(self._redis.set(self._key("turn", task), 1, nx=True, px=_ms(seconds)))

    def close(self) -> None:
        self._redis.close()

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)


def _digest(idempotency: IdempotencyKey) -> str:
    return hashlib.sha256(idempotency.key.encode()).hexdigest()


def _ms(seconds: float) -> int:
    """Redis counts in milliseconds, and refuses a TTL of none."""
    return max(1, round(seconds * 1000))


def _kept(answer: Any) -> Any:
    """The answer to a write under a fence, unless it was refused."""
    if answer == b"lost":
        raise LeaseLost("the lease of this attempt was taken away: its writes are refused")
    return answer
