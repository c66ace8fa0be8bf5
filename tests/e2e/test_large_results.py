"""A job whose vectors are too large for Redis, from a real worker to a real client."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.result import MEAN, Manifest, StoredVectors, validation_vector
from ascribe.results.ranking import RankedOrder
from tests.e2e.conftest import Spec
from tests.support.tiny import make_checkpoint, make_rows, write_rows

TRAIN, VALIDATION = 60, 5
LIMIT = 1000
"""Between the mean with the losses and all vectors: 480 and 1680 bytes."""

ORDERS: dict[RankedOrder, Callable[[float], float]] = {
    "proponents": lambda score: -score,
    "opponents": lambda score: score,
    "absolute": lambda score: -abs(score),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("large")
    root = folder / "data"
    make_checkpoint(root)
    rows = make_rows(TRAIN + VALIDATION)
    write_rows(root / "train.jsonl", rows[:TRAIN])
    write_rows(root / "validation.jsonl", rows[TRAIN:])
    env = {"ASCRIBE_MAX_REDIS_RESULT_BYTES": str(LIMIT)}
    with Stack(root, state_dir=folder / "state", env=env) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def run(client: Client, **output: bool) -> tuple[str, Manifest]:
    spec: Spec = {
        "model": {"base": "base", "adapter": "adapter"},
        "train": {"source": {"kind": "file", "path": "train.jsonl"}},
        "validation": {"source": {"kind": "file", "path": "validation.jsonl"}},
        "curvature": {"kind": "gfim"},
        "solver": {"kind": "cholesky"},
        "output": output,
    }
    job = client.create_and_wait(spec, timeout=120)
    assert job.result is not None
    return job.id, job.result


def vector_file(stack: Stack, stored: StoredVectors) -> Path:
    (path,) = (stack.state_dir / "results").rglob(stored.name)
    return path


def test_scores_are_read_from_a_file(stack: Stack, client: Client) -> None:
    small, small_manifest = run(client, per_validation_row=False)
    large, manifest = run(client, per_validation_row=True)
    assert small_manifest.stored is None
    assert manifest.stored is not None
    table = pq.read_table(vector_file(stack, manifest.stored))
    assert table.column_names == list(manifest.vectors)
    assert table.num_rows == TRAIN

    mean = table[MEAN].to_pylist()
    assert [row.score for row in client.scores(large)] == mean
    for order, worth in ORDERS.items():
        expected = [index for _, index in sorted((worth(score), index) for index, score in enumerate(mean))]
        assert [row.index for row in client.scores(large, order=order)] == expected
    queries = [f"r{TRAIN + index}" for index in range(VALIDATION)]
    for index, query in enumerate(queries):
        scores = [row.score for row in client.scores(large, validation_id=query)]
        assert scores == table[validation_vector(index)].to_pylist()
    with httpx.Client(base_url=stack.url) as http:
        body = http.get(f"/v1/jobs/{large}/scores", params={"format": "parquet", "vector": "all"}).content
    matrix = pq.read_table(io.BytesIO(body))
    for index, query in enumerate(queries):
        assert matrix[f"score:{query}"].equals(table[validation_vector(index)])
    assert client.report(large).startswith("<!doctype html>")

    path = vector_file(stack, manifest.stored)
    client.delete(large)
    assert not path.exists()
    assert len(client.scores(small)) == TRAIN


def test_the_same_job_again_has_the_same_file(stack: Stack, client: Client) -> None:
    contents = []
    for _ in range(2):
        _, manifest = run(client, per_validation_row=True, self_influence=True)
        assert manifest.stored is not None
        contents.append(vector_file(stack, manifest.stored).read_bytes())
    assert contents[0] == contents[1]
    assert not list(stack.cache_dir.glob(".results-*"))
