"""What can be asked of the API: each function builds one request, with how to read its reply.

Nothing here sends anything. :class:`ascribe.Client` and :class:`ascribe.AsyncClient` share these requests and differ
in how they wait for the network alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from ascribe.client import files
from ascribe.client.errors import UnexpectedReply
from ascribe.client.messages import (
    MEDIA_TYPES,
    Dataset,
    Document,
    Format,
    JobSummary,
    Page,
    QueryOptions,
    Request,
    Selection,
    SelectionOptions,
    SelectionSummary,
    Spec,
    as_model,
)
from ascribe.event import Event
from ascribe.job import Job, JobState
from ascribe.result import ScoredRow
from ascribe.spec import DatasetSpec

T = TypeVar("T")
JOBS_PAGE = 100
SCORES_PAGE = 10_000
UPLOAD_SECONDS = 600
"""The API reads the whole file before it answers."""


class _JobPage(BaseModel):
    data: list[Job]
    has_more: bool
    last_id: str | None = None


class _EventPage(BaseModel):
    data: list[Event]
    has_more: bool
    last_id: int | None = None


class _ScorePage(BaseModel):
    data: list[ScoredRow]
    has_more: bool
    next_after: int | str | None = None


def create(spec: Spec, idempotency_key: str | None) -> Request[Job]:
    key = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Request("POST", "/v1/jobs", as_model(Job), json=_body(spec), headers=key)


def validate(spec: Spec) -> Request[Document]:
    return Request("POST", "/v1/jobs:validate", as_model(Document), json=_body(spec))


def query(job_id: str, validation: Mapping[str, Any] | DatasetSpec, more: QueryOptions) -> Request[Job]:
    key = {"Idempotency-Key": more.get("idempotency_key") or uuid.uuid4().hex}
    body = {"validation": _body(validation)} | _given(
        name=more.get("name"), labels=more.get("labels"), output=more.get("output")
    )
    return Request("POST", _path(job_id, "/queries"), as_model(Job), json=body, headers=key)


def get(job_id: str) -> Request[Job]:
    return Request("GET", _path(job_id), as_model(Job))


def jobs(
    status: JobState | str | None,
    model: str | None,
    query_of: str | None,
    labels: Mapping[str, str] | None,
    limit: int | None,
) -> Request[Page[Job]]:
    query = _given(status=status, model=model, query_of=query_of, limit=min(limit or JOBS_PAGE, JOBS_PAGE))
    query |= {f"label.{key}": value for key, value in (labels or {}).items()}

    def page_after(cursor: str | None, left: int | None) -> Request[Page[Job]]:
        def parse(response: httpx.Response) -> Page[Job]:
            page = as_model(_JobPage)(response)
            rest = None if left is None else left - len(page.data)
            ended = not page.has_more or page.last_id is None or (rest is not None and rest <= 0)
            return Page(page.data[:left], None if ended else page_after(page.last_id, rest))

        return Request("GET", "/v1/jobs", parse, params=query | _given(after=cursor))

    return page_after(None, limit)


def cancel(job_id: str) -> Request[Job]:
    return Request("POST", _path(job_id, ":cancel"), as_model(Job))


def retry(job_id: str, idempotency_key: str | None) -> Request[Job]:
    key = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Request("POST", _path(job_id, ":retry"), as_model(Job), headers=key)


def delete(job_id: str) -> Request[None]:
    return Request("DELETE", _path(job_id), lambda _: None)


def events(job_id: str) -> Request[Page[Event]]:
    def page_after(cursor: int | None) -> Request[Page[Event]]:
        def parse(response: httpx.Response) -> Page[Event]:
            page = as_model(_EventPage)(response)
            return Page(page.data, page_after(page.last_id) if page.has_more else None)

        return Request("GET", _path(job_id, "/events"), parse, params=_given(after=cursor))

    return page_after(None)


def scores(job_id: str, which: Selection) -> Request[Page[ScoredRow]]:
    query = _given(**which, limit=SCORES_PAGE)

    def page_after(cursor: int | str | None) -> Request[Page[ScoredRow]]:
        def parse(response: httpx.Response) -> Page[ScoredRow]:
            page = as_model(_ScorePage)(response)
            ended = not page.has_more or page.next_after is None
            return Page(page.data, None if ended else page_after(page.next_after))

        return Request("GET", _path(job_id, "/scores"), parse, params=query | _given(after=cursor))

    return page_after(None)


def scores_stream(job_id: str, form: Format, which: Selection) -> Request[None]:
    """All scores in one reply; to be streamed, so that parsing only looks at what kind of reply it is."""
    kind = MEDIA_TYPES[form]

    def check(response: httpx.Response) -> None:
        if response.headers.get("Content-Type", "").split(";")[0].strip() != kind:
            raise UnexpectedReply(f"the API does not send scores as {kind}: upgrade it")

    return Request("GET", _path(job_id, "/scores"), check, params=_given(**which), headers={"Accept": kind})


def selection_summary(job_id: str, which: SelectionOptions) -> Request[SelectionSummary]:
    return Request("GET", _path(job_id, "/selection"), as_model(SelectionSummary), params=_given(**which))


def selection_stream(job_id: str, which: SelectionOptions) -> Request[None]:
    """All rows in one reply, to be streamed."""
    headers = {"Accept": MEDIA_TYPES["ndjson"]}
    return Request("GET", _path(job_id, "/selection"), lambda _: None, params=_given(**which), headers=headers)


def summary(job_id: str) -> Request[JobSummary]:
    return Request("GET", _path(job_id, "/summary"), as_model(JobSummary))


def report(job_id: str) -> Request[str]:
    return Request("GET", _path(job_id, "/report"), lambda response: response.text)


def upload(path: Path) -> Request[str]:
    """Raises FileProblem."""
    headers = {"Content-Type": files.media_type(path), "Content-Length": str(files.size(path))}
    return Request(
        "POST",
        "/v1/datasets",
        lambda response: as_model(Dataset)(response).id,
        headers=headers,
        content=lambda: files.pieces(path),
        patience_seconds=UPLOAD_SECONDS,
    )


def methods() -> Request[Document]:
    return Request("GET", "/v1/methods", as_model(Document))


def limits() -> Request[Document]:
    return Request("GET", "/v1/limits", as_model(Document))


def version() -> Request[Document]:
    return Request("GET", "/version", as_model(Document))


def ready() -> Request[bool]:
    return Request("GET", "/readyz", lambda _: True)


def held(request: Request[T], seconds: float, *, unless: str | None) -> Request[T]:
    """The same, answered when the resource differs from the entity tag ``unless``, or after ``seconds``."""
    headers = {**request.headers, "Prefer": f"wait={seconds:.0f}", **_given(**{"If-None-Match": unless})}
    return replace(request, headers=headers, patience_seconds=seconds)


def _path(job_id: str, rest: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{rest}"


def _body(value: BaseModel | Mapping[str, Any]) -> Document:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)


def _given(**values: Any) -> Document:
    return {name: value for name, value in values.items() if value is not None}
