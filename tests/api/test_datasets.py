"""Uploads: kept whole under the hash of their bytes or not at all, and named in jobs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.api.conftest import Api, StartService, problem
from tests.support.handmade import spec_body

ROWS = [{"id": f"u{i}", "text": f"text {i}", "label": ("coding", "trivia")[i % 2]} for i in range(5)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = b"id,text,label\n" + b"".join(f"{row['id']},{row['text']},{row['label']}\n".encode() for row in ROWS)
NDJSON = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


def _upload(client: TestClient, content: Any, media_type: str | None = NDJSON) -> Response:
    headers = {} if media_type is None else {"Content-Type": media_type}
    return client.post("/v1/datasets", content=content, headers=headers)


def _kept(api: Api) -> list[Path]:
    folder = api.root.parent / "uploads" / "default"
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(
    ("content", "media_type", "format_"),
    [
        (JSONL, NDJSON, "jsonl"),
        (gzip.compress(JSONL), NDJSON, "jsonl"),
        (CSV, "text/csv; charset=utf-8", "csv"),
        (CSV.replace(b",", b"\t"), "text/tab-separated-values", "tsv"),
        (_parquet(), PARQUET, "parquet"),
    ],
)
def test_upload_look_use_delete(api: Api, content: bytes, media_type: str, format_: str) -> None:
    response = _upload(api.client, content, media_type)
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert dataset["id"] == f"ds_{hashlib.sha256(content).hexdigest()}"
    assert (dataset["rows"], dataset["bytes"], dataset["format"]) == (5, len(content), format_)
    assert dataset["columns"] == ["id", "text", "label"]
    location = response.headers["location"]
    assert api.client.get(location).json() == dataset

    source = {"source": {"kind": "dataset", "id": dataset["id"]}}
    assert api.submit(train=source)
    dry = api.client.post("/v1/jobs:validate", json=spec_body(train=source, validation=source)).json()
    assert (dry["train"]["rows"], dry["validation"]["rows"]) == (5, 5)

    assert api.client.delete(location).status_code == 204
    assert _kept(api) == []
    problem(api.client.get(location), 404, "not_found")
    problem(api.client.delete(location), 404, "not_found")
    problem(api.post(train=source), 422, "not_found", "/train/source/id")


def test_the_same_bytes_are_one_dataset(api: Api) -> None:
    first, again = _upload(api.client, JSONL), _upload(api.client, iter([JSONL[:40], JSONL[40:]]))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert len(_kept(api)) == 1


def test_the_same_bytes_as_another_format(api: Api) -> None:
    both = b'{"text"\n1\n2\n'  # CSV with one column of an odd name
    assert _upload(api.client, both, "text/csv").status_code == 201
    problem(_upload(api.client, both, "text/tab-separated-values"), 409, "conflict")


@pytest.mark.parametrize(
    ("content", "media_type", "code", "pointer"),
    [
        (b"", NDJSON, "empty_dataset", ""),
        (JSONL + b'{"text": "s3cr3t\n', NDJSON, "malformed_json", "/rows/5"),
        (JSONL + b'["s3cr3t"]\n', NDJSON, "not_an_object", "/rows/5"),
        (gzip.compress(JSONL)[:-9], NDJSON, "malformed_file", ""),
        (CSV + b"s3cr3t\n", "text/csv", "malformed_row", "/rows/5"),
        (b"id,id\n1,2\n", "text/csv", "duplicate_column", ""),
        (CSV, PARQUET, "malformed_file", ""),
        (_parquet()[:-20], PARQUET, "malformed_file", ""),
    ],
)
def test_a_broken_file_leaves_nothing_behind(
    api: Api, content: bytes, media_type: str, code: str, pointer: str
) -> None:
    response = _upload(api.client, content, media_type)
    problem(response, 422, code, pointer)
    assert "s3cr3t" not in response.text
    assert _kept(api) == []


@pytest.mark.parametrize("media_type", [None, "application/json", "text/plain", "multipart/form-data", "nonsense"])
def test_other_media_types(api: Api, media_type: str | None) -> None:
    problem(_upload(api.client, JSONL, media_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("chunked", [False, True])
def test_too_many_bytes(start: StartService, root: Path, chunked: bool) -> None:
    client = start(max_file_bytes=len(JSONL) - 1, max_body_bytes=10)
    content = iter([JSONL[:40], JSONL[40:]]) if chunked else JSONL
    problem(_upload(client, content), 413, "body_too_large")
    assert not any((root.parent / "uploads").rglob("rows.*"))
    # Its own limit, not that of other bodies; which still holds elsewhere.
    smaller = b"".join(JSONL.splitlines(keepends=True)[:3])
    assert _upload(client, smaller).status_code == 201
    problem(client.post("/v1/jobs", json=spec_body()), 413, "body_too_large")


def test_too_many_rows(start: StartService) -> None:
    body = problem(_upload(start(max_rows=4), JSONL), 422, "limit_exceeded")
    assert "max_rows" in body["detail"]


def test_no_place_to_keep_it(start: StartService, root: Path) -> None:
    (root.parent / "uploads").write_text("a file where a folder is wanted")
    body = problem(_upload(start(), JSONL), 503, "storage")
    assert body["retryable"]


@pytest.mark.parametrize("identifier", ["ds_x", "ds_" + "A" * 64, "ds_" + "0" * 63, "..", "ds_" + "0" * 64])
def test_ids_that_name_nothing(api: Api, identifier: str) -> None:
    problem(api.client.get(f"/v1/datasets/{identifier}"), 404, "not_found")
    source = {"source": {"kind": "dataset", "id": identifier}}
    assert api.post(train=source).status_code == 422


def test_another_tenants_dataset_is_not_there(start: StartService) -> None:
    location = _upload(start(tenant="one"), JSONL).headers["location"]
    problem(start(tenant="two").get(location), 404, "not_found")


def test_missing_columns_of_a_dataset_are_named(api: Api) -> None:
    identifier = _upload(api.client, CSV, "text/csv").json()["id"]
    train = {"source": {"kind": "dataset", "id": identifier}, "columns": {"text": "s3cr3t"}}
    response = api.client.post("/v1/jobs:validate", json=spec_body(train=train))
    body = problem(response, 422, "missing_column", "/train/columns/text")
    assert "id, text, label" in body["detail"]
    assert "s3cr3t" not in response.text


# -- a shared store -----------------------------------------------------------------------------------------------


def test_two_services_over_one_store(start: StartService, root: Path) -> None:
    url = f"file://{root.parent}/far"
    here, there = (start(store_url=url, uploads_dir=root.parent / name) for name in ("here", "there"))
    dataset = _upload(here, JSONL).json()
    location = f"/v1/datasets/{dataset['id']}"
    assert there.get(location).json() == dataset
    assert _upload(there, JSONL).status_code == 200
    source = {"source": {"kind": "dataset", "id": dataset["id"]}}
    assert there.post("/v1/jobs", json=spec_body(train=source)).status_code == 202
    assert not list((root.parent / "there").rglob("rows.*")), "a POST moves no rows"
    dry = there.post("/v1/jobs:validate", json=spec_body(train=source)).json()
    assert dry["train"]["rows"] == 5
    assert here.delete(location).status_code == 204
    problem(there.get(location), 404, "not_found")
    problem(there.post("/v1/jobs", json=spec_body(train=source)), 422, "not_found", "/train/source/id")


def test_a_store_that_fails_is_said_to_be_worth_a_retry(start: StartService, root: Path) -> None:
    (root.parent / "far").write_text("a file where a folder is wanted")
    client = start(store_url=f"file://{root.parent}/far")
    response = _upload(client, JSONL)
    assert problem(response, 503, "storage")["retryable"]
    assert response.headers["retry-after"]
    problem(client.get("/v1/datasets/ds_" + "0" * 64), 503, "storage")
