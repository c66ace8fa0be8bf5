"""The client that waits in place.

with ascribe.Client() as client:
    job = client.create_and_wait(spec)
    worst = client.scores(job.id, order="opponents", top_k=10)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import httpx

from ascribe.client import arrow, files, requests
from ascribe.client.discovery import find_url
from ascribe.client.errors import ClientError
from ascribe.client.http import Connection
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


class Client:
    """A connection to one Ascribe API; thread-safe, to be closed or used in a ``with``.

    ``url``: the API; left out, ``ASCRIBE_URL``, else what ``ascribe up`` left on this machine, else port 8000 here.
    ``api_key``: left out, ``ASCRIBE_API_KEY``. ``timeout``: seconds of one request. ``retry_seconds``: how long what
    may pass (no connection, 429, 502, 503, 504) is tried again. ``transport``: an httpx transport, for tests. Every
    method raises :class:`ascribe.client.errors.ClientError` or a subclass.
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
        policy = Policy(url or find_url(), api_key=api_key, timeout=timeout, retry_seconds=retry_seconds)
        self.url = policy.url
        self._connection = Connection(policy, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # -- jobs ---------------------------------------------------------------------------------------------------
    def create(self, spec: Spec, *, idempotency_key: str | None = None) -> Job:
        """Submit a job. With the same key and spec the same job comes back, however often this is called."""
        return self._connection.send(requests.create(spec, idempotency_key))

    def validate(self, spec: Spec) -> Document:
        """A dry run: every check that submitting makes, and what would run. Nothing is recorded."""
        return self._connection.send(requests.validate(spec))

    def query(self, job_id: str, validation: Mapping[str, Any] | DatasetSpec, **more: Unpack[QueryOptions]) -> Job:
        """Ask a job that succeeded about new validation rows: a job of its own, on what is kept of the first one.

        ``validation``: a dataset, as in a spec.
        """
        return self._connection.send(requests.query(job_id, validation, more))

    def get(self, job_id: str) -> Job:
        return self._connection.send(requests.get(job_id))

    def list(
        self,
        *,
        status: JobState | str | None = None,
        model: str | None = None,
        query_of: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first, at most ``limit``; pages are fetched as they are needed.

        ``query_of``: the queries of that job alone.
        """
        return self._rows(requests.jobs(status, model, query_of, labels, limit))

    def events(self, job_id: str) -> Iterator[Event]:
        """What has happened to the job so far, in order."""
        return self._rows(requests.events(job_id))

    def cancel(self, job_id: str) -> Job:
        """Ask the job to stop; a running one stops within one batch. No error when it has already ended."""
        return self._connection.send(requests.cancel(job_id))

    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Job:
        """Submit the spec of a job that has ended again, as a new job; what the first one cached is used again."""
        return self._connection.send(requests.retry(job_id, idempotency_key))

    def delete(self, job_id: str) -> None:
        """Remove a job that has ended, and its scores."""
        self._connection.send(requests.delete(job_id))

    def wait(
        self, job_id: str, *, timeout: float | None = None, on_progress: Callable[[Job], None] | None = None
    ) -> Job:
        """The job once it has ended, however it ended; ``on_progress`` sees every look at it. Raises JobTimeout."""
        deadline = Deadline(timeout)
        seen: Seen | None = None
        while True:
            seen = self._connection.send(look(job_id, seen, deadline.left(), every_change=on_progress is not None))
            if on_progress:
                on_progress(seen.job)
            if seen.job.status.terminal:
                return seen.job
            time.sleep(deadline.pause(seen))

    def create_and_wait(
        self,
        spec: Spec,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """The succeeded job. Raises JobFailed, JobCancelled, JobTimeout, each with the job."""
        created = self.create(spec, idempotency_key=idempotency_key)
        return succeeded(self.wait(created.id, timeout=timeout, on_progress=on_progress))

    # -- results ------------------------------------------------------------------------------------------------
    def scores(self, job_id: str, **which: Unpack[Selection]) -> ScoredRows:
        """The scores that ``which`` selects, with id, label and text of their rows; see :class:`Selection`."""
        return [*self.iter_scores(job_id, **which)]

    def iter_scores(self, job_id: str, **which: Unpack[Selection]) -> Iterator[ScoredRow]:
        """The same one by one; pages are fetched as they are needed."""
        return self._rows(requests.scores(job_id, which))

    def scores_batches(self, job_id: str, **which: Unpack[Selection]) -> Iterator[pyarrow.RecordBatch]:
        """The same as Arrow record batches as they come: memory for one batch, however many rows there are.

        Needs the extra ``arrow``. Raises MissingExtra.
        """
        arrow.require("pyarrow", "arrow")
        with self._connection.stream(requests.scores_stream(job_id, "arrow", which)) as pieces:
            yield from arrow.batches(lambda: next(pieces, b""))

    def scores_table(self, job_id: str, **which: Unpack[Selection]) -> pyarrow.Table:
        """The same in one Arrow table. Needs the extra ``arrow``. Raises MissingExtra."""
        arrow.require("pyarrow", "arrow")
        with self._connection.stream(requests.scores_stream(job_id, "arrow", which)) as pieces:
            return arrow.table(lambda: next(pieces, b""))

    def scores_frame(self, job_id: str, **which: Unpack[Selection]) -> pandas.DataFrame:
        """The same as a data frame. Needs the extra ``pandas``. Raises MissingExtra."""
        arrow.require("pandas", "pandas")
        return self.scores_table(job_id, **which).to_pandas()

    def download(
        self,
        job_id: str,
        path: str | PathLike[str],
        *,
        format: Format = "parquet",  # noqa: A002  # the word everyone looks for
        **which: Unpack[Selection],
    ) -> Path:
        """Write the same to a file, which is there only once it is whole. Memory stays small. Raises FileProblem."""
        target = Path(path)
        with (
            self._connection.stream(requests.scores_stream(job_id, format, which)) as pieces,
            files.landing(target) as file,
        ):
            for piece in pieces:
                file.write(piece)
        return target

    def select(self, job_id: str, path: str | PathLike[str], **which: Unpack[SelectionOptions]) -> SelectionSummary:
        """Write the best train rows as JSON lines, ready for a trainer, and say what they are. Raises FileProblem."""
        target = files.lines_path(Path(path))
        found = self._connection.send(requests.selection_summary(job_id, which))
        with (
            self._connection.stream(requests.selection_stream(job_id, which)) as pieces,
            files.landing(target) as file,
        ):
            for piece in pieces:
                file.write(piece)
        return found

    def summary(self, job_id: str) -> JobSummary:
        return self._connection.send(requests.summary(job_id))

    def report(self, job_id: str) -> str:
        """One self-contained HTML page."""
        return self._connection.send(requests.report(job_id))

    # -- the service --------------------------------------------------------------------------------------------
    def upload(self, path: str | PathLike[str]) -> str:
        """Send a dataset (JSONL, CSV or Parquet, by its ending); the id to name it by. Raises FileProblem.

        The id follows from the content: the same file again is the same dataset.
        """
        return self._connection.send(requests.upload(Path(path)))

    def methods(self) -> Document:
        """Curvatures, solvers and which go together."""
        return self._connection.send(requests.methods())

    def limits(self) -> Document:
        """What the service accepts at most."""
        return self._connection.send(requests.limits())

    def version(self) -> Document:
        return self._connection.send(requests.version())

    def ready(self) -> bool:
        """Whether the API takes jobs now. Asks once and raises nothing when it does not answer."""
        try:
            return self._connection.send_once(requests.ready())
        except ClientError:
            return False

    def _rows(self, part: Request[Page[T]]) -> Iterator[T]:
        following: Request[Page[T]] | None = part
        while following:
            page = self._connection.send(following)
            yield from page.data
            following = page.following
