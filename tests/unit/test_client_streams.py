"""Both clients: scores as Arrow, data frames and files, and datasets on their way up."""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pandas
import pyarrow as pa
import pytest
import stamina

from ascribe.client import AsyncClient, Client, errors
from ascribe.client.messages import MEDIA_TYPES
from tests.support.clients import Call, call_in_a_loop, call_in_place
from tests.support.fake_api import JOB_ID, ROWS, FakeApi, problem

ARROW = {"Content-Type": MEDIA_TYPES["arrow"]}
TABLE = pa.Table.from_pylist(ROWS)


@pytest.fixture(autouse=True)
def _no_backoff() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture(params=[call_in_place, call_in_a_loop], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param
    return made


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in small pieces, maybe one that breaks off; counts what was taken."""

    def __init__(self, body: bytes, *, piece_bytes: int = 7, breaks: bool = False) -> None:
        self.taken = 0
        self._body, self._size, self._breaks = body, piece_bytes, breaks

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), self._size):
            self.taken += 1
            yield self._body[start : start + self._size]
        if self._breaks:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def arrow_stream(*batches: pa.RecordBatch, schema: pa.Schema = TABLE.schema) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def reply(body: bytes, **options: Any) -> httpx.Response:
    return httpx.Response(200, headers=ARROW, stream=Pieces(body, **options))


def test_a_table_is_what_was_sent(call: Call) -> None:
    api = FakeApi(reply(arrow_stream(*TABLE.to_batches(max_chunksize=1))))
    table = call(api, lambda client: client.scores_table(JOB_ID, validation_id="q1", order="opponents", top_k=2))
    assert table.equals(TABLE)
    (request,) = api.requests
    assert request.headers["Accept"] == "application/vnd.apache.arrow.stream"
    assert dict(request.url.params) == {"validation_id": "q1", "order": "opponents", "top_k": "2"}


def test_a_table_of_no_rows_keeps_its_columns(call: Call) -> None:
    table = call(FakeApi(reply(arrow_stream())), lambda client: client.scores_table(JOB_ID))
    assert (table.num_rows, table.column_names) == (0, TABLE.column_names)


def test_batches_come_before_the_body_has_ended() -> None:
    first, second = TABLE.to_batches(max_chunksize=1)
    whole = arrow_stream(first, second)
    body = Pieces(whole, piece_bytes=1 << 16)
    body._body = whole + b"\0" * (1 << 20)  # after the stream's end: nobody needs it
    api = FakeApi(httpx.Response(200, headers=ARROW, stream=body))
    with api.client() as client:
        batches = client.scores_batches(JOB_ID)
        assert next(batches).to_pylist() == ROWS[:1]
        assert body.taken == 1
        assert next(batches).to_pylist() == ROWS[1:]


def test_batches_are_the_rows(call: Call) -> None:
    api = FakeApi(reply(arrow_stream(*TABLE.to_batches(max_chunksize=1))))
    batches = call(api, lambda client: client.scores_batches(JOB_ID))
    assert [batch.num_rows for batch in batches] == [1, 1]
    assert pa.Table.from_batches(batches).equals(TABLE)


def test_a_frame_has_a_row_a_row(call: Call) -> None:
    frame = call(FakeApi(reply(arrow_stream(*TABLE.to_batches()))), lambda client: client.scores_frame(JOB_ID))
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("records") == ROWS


@pytest.mark.parametrize("method", ["scores_table", "scores_batches", "scores_frame"])
def test_a_stream_that_breaks_off_is_an_error_and_not_a_shorter_table(call: Call, method: str) -> None:
    whole = arrow_stream(*TABLE.to_batches(max_chunksize=1))
    for end in (len(whole) // 2, len(whole) - 60):
        api = FakeApi(reply(whole[:end], breaks=True))
        with pytest.raises(errors.NoConnection, match="did not finish"):
            call(api, lambda client: getattr(client, method)(JOB_ID))
    with pytest.raises(errors.UnexpectedReply, match="not a whole Arrow stream"):
        call(FakeApi(reply(whole[: len(whole) // 2])), lambda client: getattr(client, method)(JOB_ID))


def test_an_api_that_does_not_know_arrow_is_said_to_be_old(call: Call) -> None:
    with pytest.raises(errors.UnexpectedReply, match="upgrade"):
        call(FakeApi({"data": ROWS}), lambda client: client.scores_table(JOB_ID))


def test_opening_a_stream_is_retried_and_its_problems_are_typed(call: Call) -> None:
    api = FakeApi(problem(503), reply(arrow_stream(*TABLE.to_batches())))
    assert call(api, lambda client: client.scores_table(JOB_ID)).num_rows == 2
    with pytest.raises(errors.Gone):
        call(FakeApi(problem(410)), lambda client: client.scores_table(JOB_ID))


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [
        ("scores_table", "pyarrow", "ascribe[arrow]"),
        ("scores_batches", "pyarrow", "ascribe[arrow]"),
        ("scores_frame", "pandas", "ascribe[pandas]"),
    ],
)
def test_a_missing_package_is_named_with_its_extra_before_anything_is_asked(
    call: Call, monkeypatch: pytest.MonkeyPatch, method: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    api = FakeApi(problem(500))
    with pytest.raises(errors.MissingExtra) as caught:
        call(api, lambda client: getattr(client, method)(JOB_ID))
    assert f"pip install '{extra}'" in str(caught.value)
    assert api.requests == []


def test_a_download_lands_whole(call: Call, tmp_path: Path) -> None:
    body = b"index,id\n" * 1000
    api = FakeApi(httpx.Response(200, headers={"Content-Type": "text/csv; charset=utf-8"}, stream=Pieces(body)))
    target = tmp_path / "scores.csv"
    written = call(api, lambda client: client.download(JOB_ID, target, format="csv", vector="all"))
    assert (written, target.read_bytes()) == (target, body)
    assert api.requests[0].headers["Accept"] == "text/csv"
    assert dict(api.requests[0].url.params) == {"vector": "all"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_download_that_breaks_off_leaves_what_was_there(call: Call, tmp_path: Path) -> None:
    target = tmp_path / "scores.arrow"
    target.write_text("yesterday's")
    with pytest.raises(errors.NoConnection):
        call(FakeApi(reply(b"half", breaks=True)), lambda client: client.download(JOB_ID, target, format="arrow"))
    assert target.read_text() == "yesterday's"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(errors.FileProblem, match="No such file"):
        call(FakeApi(reply(b"x")), lambda client: client.download(JOB_ID, tmp_path / "no" / "f", format="arrow"))


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("rows.jsonl", "application/x-ndjson"),
        ("rows.CSV", "text/csv"),
        ("rows.csv.gz", "text/csv"),
        ("rows.tsv", "text/tab-separated-values"),
        ("rows.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_an_upload_sends_the_file_as_it_is_again_after_a_lost_reply(
    call: Call, tmp_path: Path, name: str, media_type: str
) -> None:
    content = bytes(range(256)) * 10_000  # more than one piece
    (tmp_path / name).write_bytes(content)
    api = FakeApi(httpx.ReadError("reset"), httpx.Response(201, json={"id": "ds_1", "object": "dataset"}))
    assert call(api, lambda client: client.upload(tmp_path / name)) == "ds_1"
    for request in api.requests:
        assert (request.method, request.url.path, request.content) == ("POST", "/v1/datasets", content)
        assert request.headers["Content-Type"] == media_type
        assert request.headers["Content-Length"] == str(len(content))
        assert "Transfer-Encoding" not in request.headers
    assert len(api.requests) == 2


def _upload(client: Any, *, path: Path) -> Any:
    return client.upload(path)


def test_what_is_no_dataset_is_refused_before_anything_is_sent(call: Call, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("x")
    api = FakeApi({"id": "ds_1"})
    for path in (tmp_path / "rows.txt", tmp_path / "missing.csv", tmp_path):
        with pytest.raises(errors.FileProblem):
            call(api, partial(_upload, path=path))
    assert api.requests == []


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: [str(parameter) for parameter in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "aclose")
        }

    assert methods(Client) == methods(AsyncClient)


class Stalls(Pieces):
    """Half of a body, then nothing for a long time."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body[: len(self._body) - 100]
        await asyncio.sleep(60)


def test_a_loop_left_early_and_a_cancelled_read_let_go_of_the_reply() -> None:
    def api() -> FakeApi:
        body = arrow_stream(*TABLE.to_batches(max_chunksize=1))
        return FakeApi(httpx.Response(200, headers=ARROW, stream=Stalls(body)))

    async def main() -> None:
        async with api().async_client() as client, aclosing(client.scores_batches(JOB_ID)) as batches:
            assert (await anext(batches)).num_rows == 1
        async with api().async_client() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.scores_table(JOB_ID)

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 5
