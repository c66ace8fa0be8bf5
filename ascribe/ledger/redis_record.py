"""The job record as Redis keeps it, a hash of strings, and as everyone else reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ascribe.event import Event, EventType, make_event
from ascribe.job import Attempt, Job, JobError, JobState, Progress
from ascribe.ledger.values import Call, JobFilter, Pulse, Ring
from ascribe.result import Manifest
from ascribe.spec import JobSpec
from ascribe.view import SpecView

FILTER_FIELDS = ("status", "base", "adapter", "labels", "query_of")
"""What a list needs to know of a job to pass it over."""
PULSE_FIELDS = ("status", "revision", "events")


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """HGETALL's answer inside a script: names and values in turn."""
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def to_fields(spec: JobSpec, retry_of: str | None) -> list[str]:
    """Names and values in turn: what lists and answers need of a new record."""
    fields = {
        "view": SpecView.of(spec).model_dump_json(),
        "base": spec.model.base,
        "adapter": spec.model.adapter or "",
        "labels": json.dumps(spec.labels),
        "solver": spec.solver.kind,
        "query_of": spec.query_of.job_id if spec.query_of else "",
        "retry_of": retry_of or "",
    }
    return [text for field in fields.items() for text in field]


def to_job(fields: Mapping[str, bytes]) -> Job:
    return Job(
        id=fields["id"].decode(),
        revision=int(fields["revision"]),
        status=JobState(fields["status"].decode()),
        spec=SpecView.model_validate_json(fields["view"]),
        created_at=_time(fields["created_at"]),
        started_at=_time_or_none(fields.get("started_at")),
        finished_at=_time_or_none(fields.get("finished_at")),
        attempt=int(fields["attempt"]),
        attempts=_attempts(fields),
        progress=_progress(fields),
        error=JobError.model_validate_json(fields["error"]) if "error" in fields else None,
        result=Manifest.model_validate_json(fields["manifest"]) if "manifest" in fields else None,
        retry_of=fields["retry_of"].decode() or None,
    )


def matches(job_filter: JobFilter, values: Sequence[Any]) -> bool:
    """Whether a record with these FILTER_FIELDS passes. A record that is gone passes nothing."""
    status, base, adapter, labels, query_of = values
    if status is None:
        return False
    if job_filter.status is not None and status.decode() != job_filter.status:
        return False
    if job_filter.model is not None and job_filter.model not in (base.decode(), adapter.decode()):
        return False
    if job_filter.query_of is not None and job_filter.query_of != (query_of or b"").decode():
        return False
    stored: dict[str, str] = json.loads(labels)
    return job_filter.labels.items() <= stored.items()


def to_pulse(values: Sequence[Any]) -> Pulse | None:
    """From PULSE_FIELDS."""
    status, revision, events = values
    return None if status is None else Pulse(JobState(status.decode()), int(revision), int(events))


def to_ring(entry: Sequence[Any]) -> Ring:
    job_id, attempt, queue, priority = entry
    return Ring(job_id.decode(), attempt, queue.decode(), priority.decode())


def to_calls(entry: Sequence[Any]) -> list[Call]:
    """One for each helper that is wanted."""
    job_id, queue, priority, helpers = entry
    return [Call(job_id.decode(), queue.decode(), priority.decode())] * helpers


def to_event(job_id: str, entry: Any) -> Event:
    """From an entry of the job's stream."""
    number, fields = entry
    return make_event(
        job_id,
        int(number.partition(b"-")[0]),
        EventType(fields[b"type"].decode()),
        _time(fields[b"at"]),
        int(fields[b"attempt"]),
        fields[b"detail"].decode(),
    )


def _time(milliseconds: bytes) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _time_or_none(milliseconds: bytes | None) -> datetime | None:
    return None if milliseconds is None else _time(milliseconds)


def _attempts(fields: Mapping[str, bytes]) -> tuple[Attempt, ...]:
    """Every attempt that was claimed: the present one is not before its claim."""
    return tuple(
        Attempt(
            number=number,
            worker=fields[f"attempt:{number}:worker"].decode(),
            started_at=_time(fields[f"attempt:{number}:started_at"]),
            ended_at=_time_or_none(fields.get(f"attempt:{number}:ended_at")),
            outcome=_text(fields.get(f"attempt:{number}:outcome")),
        )
        for number in range(1, int(fields["attempt"]) + 1)
        if f"attempt:{number}:worker" in fields
    )


def _text(value: bytes | None) -> Any:
    return None if value is None else value.decode()


def _progress(fields: Mapping[str, bytes]) -> Progress | None:
    if "progress" not in fields:
        return None
    progress = Progress.model_validate_json(fields["progress"])
    return progress.model_copy(update={"updated_at": _time(fields["progress_at"])})
