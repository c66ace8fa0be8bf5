"""Inputs beyond JSON lines below the data root, over HTTP to a worker: an upload, Parquet, CSV."""

from __future__ import annotations

import csv
import json
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ascribe.client.errors import JobFailed
from tests.e2e.conftest import MakeSpec, System


def _rows(system: System, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (system.data_root / f"topics/{name}.jsonl").read_text().splitlines()]


def test_uploads_parquet_and_csv_give_the_scores_of_the_same_json_lines(system: System, make_spec: MakeSpec) -> None:
    expected = system.client.scores(system.client.create_and_wait(make_spec()).id)
    pq.write_table(pa.Table.from_pylist(_rows(system, "train")), system.data_root / "train.parquet")
    validation = _rows(system, "validation")
    with (system.data_root / "validation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(validation[0]))
        writer.writeheader()
        writer.writerows(validation)
    response = httpx.post(
        f"{system.stack.url}/v1/datasets",
        content=(system.data_root / "train.parquet").read_bytes(),
        headers={"Content-Type": "application/vnd.apache.parquet"},
        timeout=30,
    )
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert dataset["rows"] == len(_rows(system, "train"))
    for train in ({"kind": "file", "path": "train.parquet"}, {"kind": "dataset", "id": dataset["id"]}):
        job = system.client.create_and_wait(
            make_spec(train={"source": train}, validation={"source": {"kind": "file", "path": "validation.csv"}})
        )
        assert system.client.scores(job.id) == expected


def test_a_truncated_parquet_file_fails_the_job_and_not_the_worker(system: System, make_spec: MakeSpec) -> None:
    path = system.data_root / "torn.parquet"
    pq.write_table(pa.Table.from_pylist(_rows(system, "train")), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(JobFailed) as raised:
        system.client.create_and_wait(make_spec(train={"source": {"kind": "file", "path": "torn.parquet"}}))
    error = raised.value.job.error
    assert error is not None
    assert (error.errors[0].code, error.errors[0].pointer) == ("malformed_file", "/train/source")
    assert system.client.create_and_wait(make_spec()).attempt == 1
