"""A real stack for the whole session: Valkey, the API over HTTP, a Celery worker, and MiniLM fine-tuned on dialogue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job, Phase
from examples.demo.corpus import build_corpus, write
from examples.demo.finetune import ADAPTER, BASE, ROWS, prepare

LEASE = {
    "ASCRIBE_LEASE_SECONDS": "3",
    "ASCRIBE_RECONCILE_SECONDS": "0.5",
    "ASCRIBE_RING_AGAIN_SECONDS": "2",
    "ASCRIBE_SHARD_ROWS": "32",
}
"""Short, so that a lost worker is missed in seconds."""

Spec = dict[str, Any]
MakeSpec = Callable[..., Spec]


@dataclass(frozen=True)
class System:
    stack: Stack
    client: Client
    data_root: Path

    def running_past(self, job: Job, rows: int) -> Job:
        """The job once it has gradients of ``rows`` rows and is still at it."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            now = self.client.get(job.id)
            assert not now.status.terminal, now.error
            if now.progress and now.progress.phase is Phase.CACHING_GRADIENTS and now.progress.done >= rows:
                return now
            time.sleep(0.05)
        raise TimeoutError


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("system")
    data_root = prepare(folder / "data", limit=160, epochs=1, progress=False)
    write(build_corpus(0), data_root / "all")  # enough rows to be interrupted in
    with Stack(data_root, state_dir=folder / "state", env=LEASE) as stack, Client(stack.url) as client:
        yield System(stack, client, data_root)


@pytest.fixture
def make_spec() -> MakeSpec:
    def make(curvature: str = "gfim", solver: str = "schulz", **changes: Any) -> Spec:
        return {
            "model": {"base": BASE, "adapter": ADAPTER},
            "train": {"source": {"kind": "file", "path": f"{ROWS}/train.jsonl"}},
            "validation": {"source": {"kind": "file", "path": f"{ROWS}/validation.jsonl"}},
            "curvature": {"kind": curvature},
            "solver": {"kind": solver},
        } | changes

    return make
