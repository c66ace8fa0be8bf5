"""What is read of a ledger in Redis: records, events, lists, results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter

from ascribe.errors import NotFound
from ascribe.event import Event
from ascribe.job import Job, JobState
from ascribe.ledger import messages
from ascribe.ledger.chunks import CHUNK_BYTES, pieces
from ascribe.ledger.redis_client import Scripts, answering, connect
from ascribe.ledger.redis_record import FILTER_FIELDS, PULSE_FIELDS, matches, pairs, to_event, to_job, to_pulse
from ascribe.ledger.values import (
    QUEUES,
    Counts,
    IdempotencyKey,
    JobFilter,
    Page,
    Policy,
    Pulse,
    QueueCounts,
    WorkerInfo,
)
from ascribe.spec import JobSpec

LAYOUT = "3"
"""Part of every key: a release that lays out records in another way must not meet old ones."""
LIST_BATCH = 200
RANGE_BATCH = 32
"""Vectors one script takes a piece of: it copies a chunk of each, and must not hold the server for long."""

WORKER_INFO = TypeAdapter(WorkerInfo)


class RedisReader:
    """The part of :class:`ascribe.ledger.redis.RedisLedger` that changes nothing."""

    def __init__(self, url: str, *, tenant: str, policy: Policy, timeout_seconds: float) -> None:
        self._policy = policy
        self._prefix = f"{{ascribe:{tenant}}}:{LAYOUT}:"
        self._redis = connect(url, timeout_seconds)
        self._scripts = Scripts(self._redis, self._prefix)

    def replayed(self, idempotency: IdempotencyKey) -> Job | None:
        with answering():
            kept: Any = self._redis.get(self._key("idempotency", digest(idempotency)))
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

    def ping(self) -> None:
        with answering():
            self._redis.ping()

    def counts(self) -> Counts:
        totals, found = self._scripts.run("counts", *JobState)
        states = {queue.decode(): dict(zip(JobState, jobs, strict=True)) for queue, _, *jobs in found}
        oldest = {queue.decode(): milliseconds / 1000 for queue, milliseconds, *_ in found}
        return Counts(
            {status: sum(of_queue[status] for of_queue in states.values()) for status in JobState},
            {
                queue: QueueCounts(
                    queued=states[queue][JobState.QUEUED],
                    running=states[queue][JobState.RUNNING] + states[queue][JobState.CANCELLING],
                    oldest_queued_seconds=oldest[queue],
                )
                for queue in QUEUES
            },
            {name: float(value) for name, value in pairs(totals).items()},
        )

    def workers(self) -> Sequence[WorkerInfo]:
        found = [WORKER_INFO.validate_json(entry) for entry in self._scripts.run("workers")]
        return sorted(found, key=lambda info: info.worker)

    def announced_gradients(self, gradient_fingerprint: str) -> int | None:
        with answering():
            rows: Any = self._redis.get(self._key("gradients", gradient_fingerprint))
        return None if rows is None else int(rows)

    def close(self) -> None:
        self._redis.close()

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)


def digest(idempotency: IdempotencyKey) -> str:
    return hashlib.sha256(idempotency.key.encode()).hexdigest()
