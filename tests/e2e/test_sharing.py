"""One job on several real workers: the bits of one, also when a worker is killed at half of the gradient caching."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job, JobState
from tests.e2e.conftest import LEASE, MakeSpec, Spec, System

ROWS = 600
SHARD_ROWS = int(LEASE["ASCRIBE_SHARD_ROWS"])
ENV = LEASE | {"ASCRIBE_RETRY_BACKOFF_SECONDS": "0.5", "ASCRIBE_RECONCILE_SECONDS": "0.2", "ASCRIBE_LOG_FORMAT": "json"}


@pytest.fixture
def spec(make_spec: MakeSpec) -> Spec:
    train = {"source": {"kind": "file", "path": "all/train.jsonl"}, "limit": ROWS}
    return make_spec(train=train, output={"self_influence": True})


@pytest.fixture
def expected(system: System, spec: Spec) -> list[object]:
    """By the one worker of the system's own stack."""
    return scores(system.client, system.client.create_and_wait(spec, timeout=180))


def scores(client: Client, job: Job) -> list[object]:
    assert job.result is not None, job.error
    return [client.scores(job.id), client.scores(job.id, vector="self_influence")]


@pytest.fixture(scope="module")
def pair(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with _stack(system.data_root, tmp_path_factory.mktemp("pair"), workers=2) as two:
        yield two


@contextmanager
def _stack(data_root: Path, state_dir: Path, *, workers: int) -> Iterator[System]:
    with Stack(data_root, state_dir=state_dir, workers=workers, env=ENV) as stack, Client(stack.url) as client:
        yield System(stack, client, data_root)


def _warm(system: System, make_spec: MakeSpec) -> None:
    """Every worker has loaded the model: a job each, at the same time."""
    count = len(system.stack.worker_pids)
    queries = [{"id": str(n), "text": f"question {n}", "label": "coding"} for n in range(count)]
    specs = [make_spec(validation={"source": {"kind": "inline", "rows": [query]}}) for query in queries]
    jobs = [system.client.create(each) for each in specs]
    for job in jobs:
        assert system.client.wait(job.id, timeout=180).status is JobState.SUCCEEDED
    for kind in ("gradients", "curvature", "solution", "scoring"):
        shutil.rmtree(system.stack.cache_dir / kind, ignore_errors=True)


def _shares(job: Job) -> dict[str, int]:
    assert job.result is not None
    return dict(job.result.diagnostics.workers)


def test_two_workers_share_a_job_and_make_the_bits_of_one(
    pair: System, spec: Spec, expected: list[object], make_spec: MakeSpec
) -> None:
    _warm(pair, make_spec)
    job = pair.client.create_and_wait(spec, timeout=180)
    assert scores(pair.client, job) == expected
    shares = _shares(job)
    assert len(shares) == 2
    assert min(shares.values()) >= 2 * SHARD_ROWS
    assert job.result is not None
    assert job.result.diagnostics.warnings == ()


def test_four_workers_make_the_bits_of_one(
    system: System, spec: Spec, expected: list[object], make_spec: MakeSpec, tmp_path: Path
) -> None:
    with _stack(system.data_root, tmp_path, workers=4) as four:
        _warm(four, make_spec)
        job = four.client.create_and_wait(spec, timeout=240)
        assert scores(four.client, job) == expected
        assert len(_shares(job)) >= 3


def _owner(system: System, job: Job) -> int:
    """The number of the worker that has the job."""
    pid = int(system.client.get(job.id).attempts[-1].worker.rsplit("-", 1)[1])
    return system.stack.worker_pids.index(os.getpgid(pid))


def _until(told: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _whole_shards(system: System) -> dict[Path, tuple[int, int]]:
    """Which file each of them is: one that is computed again is another."""
    stats = {
        path: path.with_suffix(".safetensors").stat()
        for path in system.stack.cache_dir.glob("gradients/*/shard-*.json")
    }
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.mark.parametrize("killed", ["helper", "owner"])
def test_a_worker_killed_at_half_of_the_caching_costs_at_most_the_shard_in_its_hands(
    pair: System, spec: Spec, expected: list[object], make_spec: MakeSpec, killed: str
) -> None:
    """R16, with either of two workers."""
    _warm(pair, make_spec)
    job = pair.client.create(spec)
    pair.running_past(job, rows=ROWS // 4)
    owner = _owner(pair, job)
    helper_log = pair.stack.log_dir / f"worker-{2 - owner}.log"
    _until(lambda: f'"job_id": "{job.id}"' in helper_log.read_text())
    pair.running_past(job, rows=ROWS // 2)
    victim = owner if killed == "owner" else 1 - owner
    pair.stack.kill_worker(victim)
    kept = _whole_shards(pair)
    ended = pair.client.wait(job.id, timeout=180)
    pair.stack.restart_worker(victim)

    assert scores(pair.client, ended) == expected
    assert [attempt.outcome for attempt in ended.attempts] == (
        ["lost", "succeeded"] if killed == "owner" else ["succeeded"]
    )
    assert len(kept) >= ROWS // 2 // SHARD_ROWS
    assert kept.items() <= _whole_shards(pair).items(), "what was whole was not computed again"
