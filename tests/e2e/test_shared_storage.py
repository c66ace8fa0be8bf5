"""Two whole stacks, nothing in common but an S3 store: what one computed or was sent, the other finds."""

from __future__ import annotations

import signal
from pathlib import Path
from uuid import uuid4

import pytest

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import JobState
from tests.e2e.conftest import Spec
from tests.support.objectstore import ObjectStore
from tests.support.tiny import make_checkpoint, make_rows, write_rows

TRAIN = 60


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    make_checkpoint(root)
    rows = make_rows(TRAIN + 5)
    write_rows(root / "train.jsonl", rows[:TRAIN])
    write_rows(root / "validation.jsonl", rows[TRAIN:])
    return root


def spec(train: str, **changes: object) -> Spec:
    return {
        "model": {"base": "base", "adapter": "adapter"},
        "train": {"source": {"kind": "dataset", "id": train}},
        "validation": {"source": {"kind": "file", "path": "validation.jsonl"}},
        "curvature": {"kind": "gfim"},
        "solver": {"kind": "schulz"},
    } | changes


def test_a_second_stack_finds_everything(data_root: Path, tmp_path: Path, object_store: ObjectStore) -> None:
    env = {**object_store.env, "ASCRIBE_STORE_URL": f"{object_store.url}/{uuid4().hex}", "ASCRIBE_SHARD_ROWS": "16"}
    with Stack(data_root, state_dir=tmp_path / "one", env=env) as stack, Client(stack.url) as client:
        dataset = client.upload(data_root / "train.jsonl")
        first = client.create_and_wait(spec(dataset), timeout=120)
        expected = client.scores(first.id)
    patient = {"ASCRIBE_STORE_TIMEOUT_SECONDS": "0.5"}
    with Stack(data_root, state_dir=tmp_path / "two", env=env | patient) as stack, Client(stack.url) as client:
        second = client.create_and_wait(spec(dataset), timeout=120)
        assert second.result is not None
        cache = second.result.diagnostics.cache
        assert (cache["train"].hit_rows, cache["validation"].hit_rows) == (TRAIN, 5)
        assert client.scores(second.id) == expected
        object_store.process.send_signal(signal.SIGSTOP)
        try:
            other = {"source": {"kind": "file", "path": "validation.jsonl"}}
            failed = client.wait(client.create(spec(dataset) | {"train": other, "seed": 1}).id, timeout=120)
        finally:
            object_store.process.send_signal(signal.SIGCONT)
        assert failed.status is JobState.FAILED
        assert failed.error is not None
        assert (failed.error.code, failed.error.retryable) == ("storage", True)
        assert "shared store" in failed.error.detail
