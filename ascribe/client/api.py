"""The Python client: submit a job, wait for it, read its scores.

with ascribe.Client() as client:
    job = client.create_and_wait(spec)
    worst = client.scores(job.id, order="opponents", top_k=10)
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from ascribe.client.discovery import find_url
from ascribe.client.errors import ClientError, JobCancelled, JobFailed, JobTimeout
from ascribe.client.http import Connection, parse, retry_after
from ascribe.job import Job, JobState
from ascribe.result import MEAN, Diagnostics, ScoredRow, Summary
from ascribe.spec import JobSpec

Order = Literal["row", "proponents", "opponents"]
ScoredRows: TypeAlias = list[ScoredRow]
Document: TypeAlias = dict[str, Any]

POLL_SECONDS = 1.0
LONGEST_POLL_SECONDS = 10.0


class JobSummary(Summary):
    """What ``GET /v1/jobs/{id}/summary`` answers."""

    diagnostics: Diagnostics


class _JobPage(BaseModel):
    data: list[Job]
    has_more: bool
    last_id: str | None = None


class _ScorePage(BaseModel):
    data: list[ScoredRow]
    has_more: bool
    next_after: int | str | None = None


class Client:
    """A connection to one Ascribe API; thread-safe, to be closed or used in a ``with``.

    ``url``: the API; left out, ``ASCRIBE_URL``, else what ``ascribe up`` left on this machine, else port 8000 here.
    ``api_key``: left out, ``ASCRIBE_API_KEY``. ``timeout``: seconds of one request. ``transport``: an httpx
    transport, for tests. Every method raises :class:`ascribe.client.errors.ClientError` or a subclass.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retry_seconds: float = 15.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url or find_url()
        self._connection = Connection(
            self.url,
            api_key=api_key or os.environ.get("ASCRIBE_API_KEY"),
            timeout=timeout,
            retry_seconds=retry_seconds,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # -- jobs ---------------------------------------------------------------------------------------------------
    def create(self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job. With the same key and spec the same job comes back, however often this is called."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return parse(Job, self._connection.send("POST", "/v1/jobs", json=_body(spec), headers=headers))

    def validate(self, spec: JobSpec | Mapping[str, Any]) -> Document:
        """A dry run: every check that submitting makes, and what would run. Nothing is recorded."""
        return parse(Document, self._connection.send("POST", "/v1/jobs:validate", json=_body(spec)))

    def get(self, job_id: str) -> Job:
        return parse(Job, self._connection.send("GET", _path(job_id)))

    def list(
        self,
        *,
        status: JobState | str | None = None,
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first, at most ``limit``; pages are fetched as they are needed."""
        query = _given(status=status, model=model, limit=min(limit or 100, 100))
        query |= {f"label.{key}": value for key, value in (labels or {}).items()}
        seen = 0
        while True:
            page = parse(_JobPage, self._connection.send("GET", "/v1/jobs", params=query))
            for job in page.data:
                yield job
                seen += 1
                if seen == limit:
                    return
            if not page.has_more or page.last_id is None:
                return
            query["after"] = page.last_id

    def cancel(self, job_id: str) -> Job:
        """Ask the job to stop; a running one stops within one batch. No error when it has already ended."""
        return parse(Job, self._connection.send("POST", _path(job_id, ":cancel")))

    def delete(self, job_id: str) -> None:
        """Remove a job that has ended, and its scores."""
        self._connection.send("DELETE", _path(job_id))

    def wait(
        self, job_id: str, *, timeout: float | None = None, on_progress: Callable[[Job], None] | None = None
    ) -> Job:
        """Poll until the job has ended, however it ended; ``on_progress`` sees every poll. Raises JobTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            response = self._connection.send("GET", _path(job_id))
            job = parse(Job, response)
            if on_progress:
                on_progress(job)
            if job.status.terminal:
                return job
            pause = min(retry_after(response) or POLL_SECONDS, LONGEST_POLL_SECONDS)
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise JobTimeout(job, timeout or 0)
                pause = min(pause, left)
            time.sleep(pause)

    def create_and_wait(
        self,
        spec: JobSpec | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """The succeeded job. Raises JobFailed, JobCancelled, JobTimeout, each with the job."""
        created = self.create(spec, idempotency_key=idempotency_key)
        return succeeded(self.wait(created.id, timeout=timeout, on_progress=on_progress))

    # -- results ------------------------------------------------------------------------------------------------
    def scores(
        self,
        job_id: str,
        *,
        vector: str = MEAN,
        validation_id: str | None = None,
        order: Order | None = None,
        top_k: int | None = None,
    ) -> ScoredRows:
        """Score of every train row, or of the ``top_k`` highest; ``order`` may ask for another end.

        ``vector``: ``mean`` over the validation rows, ``self_influence`` or ``train_loss``. ``validation_id``: the
        scores for that one validation row in place of the mean.
        """
        query = _given(vector=vector, validation_id=validation_id, order=order, top_k=top_k, limit=1000)
        rows: ScoredRows = []
        while True:
            page = parse(_ScorePage, self._connection.send("GET", _path(job_id, "/scores"), params=query))
            rows += page.data
            if not page.has_more or page.next_after is None:
                return rows
            query["after"] = page.next_after

    def summary(self, job_id: str) -> JobSummary:
        return parse(JobSummary, self._connection.send("GET", _path(job_id, "/summary")))

    def report(self, job_id: str) -> str:
        """One self-contained HTML page."""
        return self._connection.send("GET", _path(job_id, "/report")).text

    # -- the service --------------------------------------------------------------------------------------------
    def methods(self) -> Document:
        """Curvatures, solvers and which go together."""
        return parse(Document, self._connection.send("GET", "/v1/methods"))

    def version(self) -> Document:
        return parse(Document, self._connection.send("GET", "/version"))

    def ready(self) -> bool:
        """Whether the API takes jobs now. Asks once and raises nothing when it does not answer."""
        try:
            return self._connection.send_once("GET", "/readyz").is_success
        except ClientError:
            return False


def succeeded(job: Job) -> Job:
    """The job itself when it succeeded. Raises JobFailed, JobCancelled."""
    if job.status is JobState.FAILED:
        raise JobFailed(job)
    if job.status is JobState.CANCELLED:
        raise JobCancelled(job)
    return job


def _path(job_id: str, rest: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{rest}"


def _body(spec: JobSpec | Mapping[str, Any]) -> Document:
    return spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)


def _given(**values: Any) -> Document:
    return {name: value for name, value in values.items() if value is not None}
