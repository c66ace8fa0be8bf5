"""Scores as files: every form holds what the pages hold, and says what it is."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from httpx2 import Response

from ascribe.ledger.ids import new_job_id
from ascribe.ledger.memory import MemoryLedger
from ascribe.result import RowInfo, validation_vector
from ascribe.spec import JobSpec
from service.results import table
from tests.api.conftest import Api, problem
from tests.support.handmade import finish, manifest, scores_of, spec_body, stage, train_rows

ROWS, QUERIES = 30, 3
FILES = ("ndjson", "csv", "parquet", "arrow")
MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}


def make_job(ledger: MemoryLedger, rows: list[RowInfo], queries: list[RowInfo]) -> tuple[str, dict[str, list[float]]]:
    """A finished job with scores for every one of ``queries``."""
    spec = JobSpec.model_validate(spec_body())
    job_id = ledger.create(new_job_id(), spec).job.id
    claim = ledger.claim(job_id, 1, "w")
    assert claim is not None
    names = ["mean", "train_loss", *map(validation_vector, range(len(queries)))]
    vectors = {name: scores_of(len(rows), seed) for seed, name in enumerate(names)}
    stage(ledger, claim, vectors, rows, queries)
    done = manifest(spec, vectors, rows).model_copy(update={"validation_rows": len(queries)})
    ledger.commit(claim, done)
    return job_id, vectors


@pytest.fixture
def job(api: Api) -> tuple[str, dict[str, list[float]]]:
    queries = [RowInfo(id=f"q{i}", label="coding", text=f"query {i}") for i in range(QUERIES)]
    return make_job(api.ledger, train_rows(ROWS), queries)


def ask(api: Api, job_id: str, accept: str | None = None, **query: Any) -> Response:
    headers = {} if accept is None else {"Accept": accept}
    return api.client.get(f"/v1/jobs/{job_id}/scores", params=query, headers=headers)


def records(response: Response, form: str) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPES[form]
    match form:
        case "json":
            found: list[dict[str, Any]] = response.json()["data"]
        case "ndjson":
            found = [json.loads(line) for line in response.text.splitlines()]
        case "csv":
            kinds = {"index": int, "score": float}
            lines = csv.DictReader(io.StringIO(response.text, newline=""))
            found = [{name: kinds.get(name, str)(cell) for name, cell in line.items()} for line in lines]
        case "parquet":
            found = pq.read_table(io.BytesIO(response.content)).to_pylist()
        case _:
            found = pa.ipc.open_stream(response.content).read_all().to_pylist()
    return found


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"order": "opponents"},
        {"order": "absolute", "top_k": 7},
        {"top_k": 5},
        {"order": "row", "top_k": 4},
        {"vector": "train_loss", "order": "proponents"},
        {"validation_id": "q2"},
        {"train_id": "t4"},
        {"train_id": "t4", "order": "proponents"},
    ],
)
def test_every_form_holds_what_the_pages_hold(api: Api, job: tuple[str, Any], form: str, query: dict[str, Any]) -> None:
    page = records(ask(api, job[0], **query), "json")
    assert records(ask(api, job[0], format=form, **query), form) == page


@pytest.mark.parametrize("form", FILES)
def test_a_file_of_many_slabs_is_the_same(
    api: Api, job: tuple[str, Any], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for query in ({}, {"order": "opponents"}, {"vector": "all"}):
        whole = records(ask(api, job[0], format=form, **query), form)
        with monkeypatch.context() as patch:
            patch.setattr(table, "SLAB_ROWS", 4)
            patch.setattr(table, "SLAB_CELLS", 9)
            patch.setattr(table, "FEW_ROWS", 5)
            assert records(ask(api, job[0], format=form, **query), form) == whole


def test_largest_magnitude_first(api: Api, job: tuple[str, dict[str, list[float]]]) -> None:
    job_id, vectors = job
    expected = sorted(range(ROWS), key=lambda index: -abs(vectors["mean"][index]))
    assert [row["index"] for row in records(ask(api, job_id, order="absolute"), "json")] == expected


def test_one_train_row_over_all_validation_rows(api: Api, job: tuple[str, dict[str, list[float]]]) -> None:
    job_id, vectors = job
    body = ask(api, job_id, train_id="t4").json()
    assert (body["vector"], body["train_id"], body["validation_id"]) == ("train_row", "t4", None)
    assert [row["score"] for row in body["data"]] == [vectors[validation_vector(q)][4] for q in range(QUERIES)]
    assert [(row["index"], row["id"], row["text"]) for row in body["data"]][1] == (1, "q1", "query 1")
    first = ask(api, job_id, train_id="t4", limit=2).json()
    assert ask(api, job_id, train_id="t4", after=first["next_after"]).json()["data"] == body["data"][2:]
    problem(ask(api, job_id, train_id="t5", after=first["next_after"]), 400, "bad_cursor")
    assert "s3cr3t" not in problem(ask(api, job_id, train_id="s3cr3t"), 404, "not_found")["detail"]


@pytest.mark.parametrize("form", FILES)
def test_the_matrix(api: Api, job: tuple[str, dict[str, list[float]]], form: str) -> None:
    job_id, vectors = job
    found = records(ask(api, job_id, format=form, vector="all"), form)
    if form in ("parquet", "arrow"):
        matrix = [[row[f"score:q{q}"] for row in found] for q in range(QUERIES)]
        assert found[7]["text"] == train_rows(ROWS)[7].text
    else:
        assert [(line["index"], line["validation_id"]) for line in found[:4]] == [
            (0, "q0"),
            (0, "q1"),
            (0, "q2"),
            (1, "q0"),
        ]
        matrix = [[line["score"] for line in found if line["validation_id"] == f"q{q}"] for q in range(QUERIES)]
    assert matrix == [vectors[validation_vector(q)] for q in range(QUERIES)]


def test_files_say_what_they_are(api: Api, job: tuple[str, Any]) -> None:
    response = ask(api, job[0], format="parquet", validation_id="q1", order="opponents")
    metadata = pq.read_schema(io.BytesIO(response.content)).metadata
    assert metadata[b"ascribe.job_id"].decode() == job[0]
    assert metadata[b"ascribe.vector"] == b"validation_row"
    assert metadata[b"ascribe.validation_id"] == b"q1"
    assert metadata[b"ascribe.order"] == b"opponents"
    assert metadata[b"ascribe.status"] == b"converged"
    assert b"lowers the validation loss" in metadata[b"ascribe.sign"]
    assert response.headers["content-disposition"] == f'attachment; filename="{job[0]}-validation_row.parquet"'
    assert response.headers["vary"] == "Accept"


EVIL = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "fine, 'quoted'\n=x", "日本 🦊"]


def test_no_cell_of_a_csv_is_a_formula(api: Api) -> None:
    rows = [RowInfo(id=text, label=text, text=text) for text in EVIL]
    job_id, vectors = make_job(api.ledger, rows, [RowInfo(id="=q", label="a", text="b")])
    assert min(vectors["mean"]) < 0, "a negative number is no formula"
    expected = [f"'{text}" for text in EVIL[:6]] + EVIL[6:]
    found = records(ask(api, job_id, format="csv"), "csv")
    for name in ("id", "label", "text"):
        assert [line[name] for line in found] == expected
    assert [line["score"] for line in found] == vectors["mean"]
    assert {line["validation_id"] for line in records(ask(api, job_id, format="csv", vector="all"), "csv")} == {"'=q"}
    assert [line["text"] for line in records(ask(api, job_id, format="ndjson"), "ndjson")] == EVIL


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("TEXT/CSV; Q=0.5", "csv"),
        ("application/json;q=0.2, application/x-ndjson;q=0.9, text/csv;q=0.5", "ndjson"),
        ("application/*;q=0.5, application/json;q=0", "ndjson"),
        ("*/*, application/json;q=0.1", "ndjson"),
        ("application/vnd.apache.parquet", "parquet"),
        ("application/vnd.apache.arrow.stream, */*;q=0.1", "arrow"),
        ("text/csv;q=nonsense, application/json", "json"),
    ],
)
def test_accept_chooses_the_form(api: Api, job: tuple[str, Any], accept: str, form: str) -> None:
    assert ask(api, job[0], accept).headers["content-type"] == MEDIA_TYPES[form]


@pytest.mark.parametrize("accept", ["image/png", "text/html", "*/*;q=0", "nonsense", "text/csv;q=0"])
def test_nothing_offered_is_accepted(api: Api, job: tuple[str, Any], accept: str) -> None:
    body = problem(ask(api, job[0], accept), 406, "not_acceptable")
    assert "text/csv" in body["detail"]
    assert "application/vnd.apache.arrow.stream" in body["detail"]


def test_format_wins_over_accept(api: Api, job: tuple[str, Any]) -> None:
    assert ask(api, job[0], "application/json", format="csv").headers["content-type"] == MEDIA_TYPES["csv"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"format": "xlsx"}, "/query/format"),
        ({"format": "csv", "limit": 5}, "/query/limit"),
        ({"format": "csv", "limit": 100}, "/query/limit"),
        ({"format": "csv", "after": "x"}, "/query/after"),
        ({"vector": "all"}, "/query/vector"),
        ({"vector": "all", "format": "csv", "order": "opponents"}, "/query/order"),
        ({"vector": "all", "format": "csv", "top_k": 3}, "/query/order"),
        ({"train_id": "t1", "token": 0}, "/query/token"),
        ({"train_id": "t1", "validation_id": "q1", "token": 0}, "/query/token"),
        ({"validation_id": "q1", "vector": "all"}, "/query/validation_id"),
        ({"train_id": "t1", "vector": "train_loss"}, "/query/train_id"),
    ],
)
def test_what_does_not_go_together(api: Api, job: tuple[str, Any], query: dict[str, Any], pointer: str) -> None:
    problem(ask(api, job[0], **query), 422, "invalid_input", pointer)


def test_too_wide_for_columns(api: Api, job: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.results.formats.MAX_COLUMNS", QUERIES - 1)
    problem(ask(api, job[0], vector="all", format="arrow"), 422, "too_many_columns", "/query/format")
    assert len(records(ask(api, job[0], vector="all", format="csv"), "csv")) == ROWS * QUERIES


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("query", [{"vector": "all"}, {"train_id": "t1"}])
def test_what_was_not_stored(api: Api, form: str, query: dict[str, str]) -> None:
    spec = JobSpec.model_validate(spec_body(output={"per_validation_row": False}))
    job_id = api.ledger.create(new_job_id(), spec).job.id
    problem(ask(api, job_id, format=form, **query), 404, "not_ready")
    finish(api.ledger, job_id)
    assert "per_validation_row" in problem(ask(api, job_id, format=form, **query), 404, "not_found")["detail"]


def test_a_file_that_cannot_be_begun_is_a_problem(
    api: Api, job: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table, "FEW_ROWS", 5)
    monkeypatch.setattr("service.results.vectors.tempfile.TemporaryFile", full)
    problem(ask(api, job[0], format="csv", order="opponents"), 503, "storage")
