"""Scores in a file on the store: every answer is what it would be with the scores in the ledger."""

from __future__ import annotations

import io
import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stamina
from fastapi.testclient import TestClient
from httpx2 import Response

from ascribe.ledger.base import Policy
from ascribe.ledger.memory import MemoryLedger
from ascribe.results import ranking, writing
from ascribe.results.files import open_results
from ascribe.settings import WorkerSettings
from service.results import table
from tests.api.conftest import StartService, problem
from tests.support.handmade import spec_body
from tests.support.objectstore import ObjectStore
from tests.support.spilled import finish, worker_settings

ROWS, GROUP, TOP = 30, 7, 8
NEVER = 1 << 40
SPEC = spec_body(
    output={"self_influence": True, "role_of_inverse": {"top_directions": 4}}, damping={"relative": [0.1, 0.01]}
)


@dataclass
class Pair:
    """Two jobs of the same scores: of one they are in the ledger, of the other in a file."""

    client: TestClient
    ledger: MemoryLedger
    settings: WorkerSettings
    small: str
    large: str
    now: list[float]

    def get(self, path: str, **query: Any) -> Response:
        response: Response = self.client.get(f"/v1/jobs/{self.large}{path}", params=query)
        return response

    def both(self, path: str, **query: Any) -> tuple[bytes, bytes]:
        """The two bodies."""
        answers = [self.client.get(f"/v1/jobs/{job_id}{path}", params=query) for job_id in (self.small, self.large)]
        assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
        return answers[0].content, answers[1].content

    def same(self, path: str, **query: Any) -> bytes:
        """The body, if both are the same but for the job's id."""
        small, large = self.both(path, **query)
        assert small.replace(self.small.encode(), self.large.encode()) == large, query
        return large

    @property
    def file(self) -> Path:
        (path,) = self.settings.results_dir.rglob("*.parquet")
        return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """More than one row group, more than one slab, and rankings longer than what is kept of them."""
    monkeypatch.setattr(writing, "MOST_ROWS", GROUP)
    monkeypatch.setattr(ranking, "KEPT_ROWS", TOP)
    monkeypatch.setattr(table, "SLAB_ROWS", 4)
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of where large results go."""
    if request.param == "folder":
        return {}
    store: ObjectStore = request.getfixturevalue("object_store")
    return {"store_url": f"{store.url}/{uuid4().hex}", "store_options": dict(store.options)}


def make_pair(start: StartService, folder: Path, **settings: Any) -> Pair:
    now = [1e9]
    ledger = MemoryLedger(Policy(result_ttl_seconds=10, record_ttl_seconds=100), clock=lambda: now[0])
    client = start(ledger, **settings)
    worker = worker_settings(folder, **settings)
    jobs: list[str] = []
    for limit in (NEVER, 0):
        response = client.post("/v1/jobs", json=SPEC)
        assert response.status_code == 202, response.text
        jobs.append(response.json()["id"])
        finish(ledger, jobs[-1], worker.model_copy(update={"max_redis_result_bytes": limit}), ROWS)
    small, large = jobs
    return Pair(client, ledger, worker, small, large, now)


@pytest.fixture
def pair(start: StartService, tmp_path: Path) -> Pair:
    return make_pair(start, tmp_path)


QUERIES: tuple[dict[str, Any], ...] = (
    {},
    {"order": "row", "top_k": 9},
    *({"order": order} for order in ("proponents", "opponents", "absolute")),
    *({"order": order, "top_k": TOP} for order in ("proponents", "opponents", "absolute")),
    {"top_k": TOP + 1},
    {"damping": 0.01},
    {"damping": 0.01, "order": "opponents", "top_k": 3},
    *({"vector": vector} for vector in ("self_influence", "train_loss", "plain_product", "top_removed")),
    {"vector": "self_influence", "damping": 0.01, "order": "proponents"},
    {"validation_id": "q2"},
    {"validation_id": "q1", "order": "absolute", "top_k": 5},
    {"train_id": "t13"},
    {"train_id": "t29", "order": "opponents", "damping": 0.01},
)


def test_every_form_is_the_same(start: StartService, tmp_path: Path, place: dict[str, Any]) -> None:
    pair = make_pair(start, tmp_path, **place)
    result = pair.ledger.get(pair.large).result
    assert result is not None
    assert result.stored is not None
    assert open_results(pair.settings).size(result.stored.name) == result.stored.bytes
    for query in QUERIES:
        for form in ("json", "ndjson", "csv"):
            assert pair.same("/scores", format=form, **query)
    for query in (*QUERIES, {"vector": "all"}, {"vector": "all", "damping": 0.01, "order": "row", "top_k": 11}):
        for form, read in (("parquet", _parquet), ("arrow", _arrow)):
            expected, found = map(read, pair.both("/scores", format=form, **query))
            assert found.equals(expected), (form, query)
            differ = expected.schema.metadata.items() ^ found.schema.metadata.items()
            assert {name for name, _ in differ} == {b"ascribe.job_id"}
    for form in ("ndjson", "csv"):
        assert pair.same("/scores", format=form, vector="all")
    for path in ("/summary", "/report"):
        assert pair.get(path).status_code == 200


def _parquet(body: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(body))


def _arrow(body: bytes) -> pa.Table:
    return pa.ipc.open_stream(body).read_all()


@pytest.mark.parametrize("order", ["row", "proponents", "opponents", "absolute"])
def test_pages_join_to_the_whole(pair: Pair, order: str) -> None:
    whole = pair.get("/scores", order=order).json()["data"]
    assert len(whole) == ROWS
    found, query = [], {"order": order, "limit": 5}
    while True:
        page = json.loads(pair.same("/scores", **query))
        found += page["data"]
        if not page["has_more"]:
            break
        query["after"] = page["next_after"]
    assert found == whole


def test_what_is_not_there_is_said_as_before(pair: Pair) -> None:
    problem(pair.get("/scores", validation_id="q9"), 404, "not_found")
    problem(pair.get("/scores", vector="all"), 422, "not_in_pages")
    assert pair.get("/scores", order="row", after=pair.get("/scores", limit=1).json()["next_after"]).status_code == 200


def test_the_first_pages_of_a_ranking_need_no_store(pair: Pair) -> None:
    expected = [pair.get("/scores", order=order, limit=TOP).json() for order in ("proponents", "opponents", "absolute")]
    pair.file.rename(pair.file.with_suffix(".away"))
    found = [pair.get("/scores", order=order, limit=TOP).json() for order in ("proponents", "opponents", "absolute")]
    assert found == expected
    assert pair.get("/scores", top_k=TOP, format="csv").status_code == 200
    assert pair.get("/summary").status_code == 200
    for query in ({"order": "proponents", "limit": TOP + 1}, {}, {"train_id": "t1"}, {"format": "parquet"}):
        body = problem(pair.get("/scores", **query), 503, "storage")
        assert body["retryable"] is True
        assert "ASCRIBE_STORE_URL" in body["detail"]


def test_a_store_that_is_down(start: StartService, tmp_path: Path, object_store: ObjectStore) -> None:
    url = f"{object_store.url}/{uuid4().hex}"
    pair = make_pair(start, tmp_path, store_url=url, store_options=dict(object_store.options))
    nowhere = {"key": "k", "secret": "s3cr3t", "endpoint_url": "http://127.0.0.1:9"}
    down = start(pair.ledger, store_url=url, store_options=nowhere)
    path = f"/v1/jobs/{pair.large}/scores"
    assert down.get(path, params={"top_k": 3}).json() == pair.get("/scores", top_k=3).json()
    response = down.get(path)
    assert "shared store" in problem(response, 503, "storage")["detail"]
    assert "s3cr3t" not in response.text
    assert response.headers["retry-after"]
    assert down.delete(f"/v1/jobs/{pair.large}").status_code == 204, "the sweep removes the file"
    assert pair.get("").status_code == 404


def test_damage_is_told(pair: Pair) -> None:
    content = bytearray(pair.file.read_bytes())
    first = struct.pack("<f", pair.get("/scores", limit=1).json()["data"][0]["score"])
    content[content.index(first) + 3] ^= 1
    pair.file.write_bytes(content)
    body = problem(pair.get("/scores"), 500, "result_damaged")
    assert body["retryable"] is False
    assert "submit the job again" in body["detail"]
    assert pair.get("/scores", top_k=TOP).status_code == 200
    pair.file.write_bytes(content[:-1])
    problem(pair.get("/scores", format="ndjson"), 500, "result_damaged")


def test_scores_expire_before_the_record(pair: Pair) -> None:
    pair.now[0] += 11
    for query in ({}, {"top_k": 3}, {"train_id": "t1"}, {"vector": "all", "format": "csv"}):
        problem(pair.get("/scores", **query), 410, "expired")
    pair.file.unlink()
    problem(pair.get("/scores"), 410, "expired")
    assert pair.get("/summary").status_code == 200


def test_deleting_a_job_deletes_its_file(start: StartService, tmp_path: Path, place: dict[str, Any]) -> None:
    pair = make_pair(start, tmp_path, **place)
    files = open_results(pair.settings)
    assert len(list(files.names(""))) == 1
    assert pair.client.delete(f"/v1/jobs/{pair.large}").status_code == 204
    assert list(files.names("")) == []
    assert pair.client.delete(f"/v1/jobs/{pair.small}").status_code == 204
    problem(pair.client.delete(f"/v1/jobs/{pair.large}"), 404, "not_found")


def test_readers_at_once(pair: Pair) -> None:
    """Each has a reader of its own."""
    expected = pair.get("/scores", format="csv", vector="all").content
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(pair.get("/scores", format="csv", vector="all").content))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [expected] * 6
