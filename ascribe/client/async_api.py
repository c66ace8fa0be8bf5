"""The client for an event loop.

async with ascribe.AsyncClient() as client:
    job = await client.create_and_wait(spec)
    async for batch in client.scores_batches(job.id):
        ...
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import anyio
import httpx
from anyio import from_thread, to_thread

from ascribe.client import arrow, files, requests
from ascribe.client.async_http import AsyncConnection
from ascribe.client.discovery import find_url
from ascribe.client.errors import ClientError
from ascribe.client.messages import (
    Document,
    Format,
    JobSummary,
    Page,
    QueryOptions,
    Request,
    ScoredRows,
    Selection,
    SelectionOptions,
    SelectionSummary,
    Spec,
)
from ascribe.client.policy import Policy
from ascribe.client.waiting import Deadline, Seen, look, succeeded
from ascribe.event import Event
from ascribe.job import Job, JobState
from ascribe.result import ScoredRow
from ascribe.spec import DatasetSpec

if TYPE_CHECKING:
    import pandas
    import pyarrow

T = TypeVar("T")


class AsyncClient:
    """:class:`ascribe.Client` for asyncio: the same methods with the same arguments, awaited.

    What yields (``list``, ``iter_scores``, ``scores_batches``) is looped over with ``async for``; leave such a loop
    early only inside ``contextlib.aclosing``, as with every asynchronous generator. Closed with ``aclose``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retry_seconds: float = 15.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        policy = Policy(url or find_url(), api_key=api_key, timeout=timeout, retry_seconds=retry_seconds)
        self.url = policy.url
        self._connection = AsyncConnection(policy, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._connection.aclose()

    # -- jobs ---------------------------------------------------------------------------------------------------
    async def create(self, spec: Spec, *, idempotency_key: str | None = None) -> Job:
        return await self._connection.send(requests.create(spec, idempotency_key))

    async def validate(self, spec: Spec) -> Document:
        return await self._connection.send(requests.validate(spec))

    async def query(
        self, job_id: str, validation: Mapping[str, Any] | DatasetSpec, **more: Unpack[QueryOptions]
    ) -> Job:
        return await self._connection.send(requests.query(job_id, validation, more))

    async def get(self, job_id: str) -> Job:
        return await self._connection.send(requests.get(job_id))

    def list(
        self,
        *,
        status: JobState | str | None = None,
        model: str | None = None,
        query_of: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Job, None]:
        return self._rows(requests.jobs(status, model, query_of, labels, limit))

    def events(self, job_id: str) -> AsyncGenerator[Event, None]:
        return self._rows(requests.events(job_id))

    async def cancel(self, job_id: str) -> Job:
        return await self._connection.send(requests.cancel(job_id))

    async def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        return await self._connection.send(requests.retry(job_id, idempotency_key))

    async def delete(self, job_id: str) -> None:
        await self._connection.send(requests.delete(job_id))

    async def wait(
        self, job_id: str, *, timeout: float | None = None, on_progress: Callable[[Job], None] | None = None
    ) -> Job:
        deadline = Deadline(timeout)
        seen: Seen | None = None
        while True:
            seen = await self._connection.send(
                look(job_id, seen, deadline.left(), every_change=on_progress is not None)
            )
            if on_progress:
                on_progress(seen.job)
            if seen.job.status.terminal:
                return seen.job
            await anyio.sleep(deadline.pause(seen))

    async def create_and_wait(
        self,
        spec: Spec,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        created = await self.create(spec, idempotency_key=idempotency_key)
        return succeeded(await self.wait(created.id, timeout=timeout, on_progress=on_progress))

    # -- results ------------------------------------------------------------------------------------------------
    async def scores(self, job_id: str, **which: Unpack[Selection]) -> ScoredRows:
        return [row async for row in self.iter_scores(job_id, **which)]

    def iter_scores(self, job_id: str, **which: Unpack[Selection]) -> AsyncGenerator[ScoredRow, None]:
        return self._rows(requests.scores(job_id, which))

    async def scores_batches(
        self, job_id: str, **which: Unpack[Selection]
    ) -> AsyncGenerator[pyarrow.RecordBatch, None]:
        arrow.require("pyarrow", "arrow")
        async with self._connection.stream(requests.scores_stream(job_id, "arrow", which)) as pieces:
            batches = arrow.batches(_from_thread(pieces))
            while (batch := await to_thread.run_sync(next, batches, None)) is not None:
                yield batch

    async def scores_table(self, job_id: str, **which: Unpack[Selection]) -> pyarrow.Table:
        arrow.require("pyarrow", "arrow")
        async with self._connection.stream(requests.scores_stream(job_id, "arrow", which)) as pieces:
            return await to_thread.run_sync(arrow.table, _from_thread(pieces))

    async def scores_frame(self, job_id: str, **which: Unpack[Selection]) -> pandas.DataFrame:
        arrow.require("pandas", "pandas")
        return await to_thread.run_sync((await self.scores_table(job_id, **which)).to_pandas)

    async def download(
        self,
        job_id: str,
        path: str | PathLike[str],
        *,
        format: Format = "parquet",  # noqa: A002  # the word everyone looks for
        **which: Unpack[Selection],
    ) -> Path:
        target = Path(path)
        async with self._connection.stream(requests.scores_stream(job_id, format, which)) as pieces:
            with files.landing(target) as file:
                async for piece in pieces:
                    await to_thread.run_sync(file.write, piece)
        return target

    async def select(
        self, job_id: str, path: str | PathLike[str], **which: Unpack[SelectionOptions]
    ) -> SelectionSummary:
        target = files.lines_path(Path(path))
        found = await self._connection.send(requests.selection_summary(job_id, which))
        async with self._connection.stream(requests.selection_stream(job_id, which)) as pieces:
            with files.landing(target) as file:
                async for piece in pieces:
                    await to_thread.run_sync(file.write, piece)
        return found

    async def summary(self, job_id: str) -> JobSummary:
        return await self._connection.send(requests.summary(job_id))

    async def report(self, job_id: str) -> str:
        return await self._connection.send(requests.report(job_id))

    # -- the service --------------------------------------------------------------------------------------------
    async def upload(self, path: str | PathLike[str]) -> str:
        return await self._connection.send(requests.upload(Path(path)))

    async def methods(self) -> Document:
        return await self._connection.send(requests.methods())

    async def limits(self) -> Document:
        return await self._connection.send(requests.limits())

    async def version(self) -> Document:
        return await self._connection.send(requests.version())

    async def ready(self) -> bool:
        try:
            return await self._connection.send_once(requests.ready())
        except ClientError:
            return False

    async def _rows(self, part: Request[Page[T]]) -> AsyncGenerator[T, None]:
        following: Request[Page[T]] | None = part
        while following:
            page = await self._connection.send(following)
            for row in page.data:
                yield row
            following = page.following


def _from_thread(pieces: AsyncIterator[bytes]) -> arrow.NextPiece:
    """For pyarrow, which reads in a thread: the next piece, awaited by the event loop."""
    return lambda: from_thread.run(anext, pieces, b"")
