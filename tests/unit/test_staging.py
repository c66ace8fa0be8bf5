"""Files of vectors under an attempt: one that did not become the result is gone, whatever ended the attempt."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ascribe.errors import QueueUnavailable, StorageFailed
from ascribe.job import JobState
from ascribe.ledger.base import Claim, LeaseLost, Policy
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.memory import MemoryLedger
from ascribe.result import Manifest
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from tests.support.disk import files_no_larger_than
from tests.support.handmade import spec_body
from tests.support.jobs import no_help
from tests.support.spilled import claimed, fill, staging, worker_settings
from worker.attempt import Equipment, attend
from worker.pipeline import Sink
from worker.progress import Cancelled, Reporter
from worker.sharing import Crew
from worker.staging import Staging

BYTES = 5 * 30 * 4
"""Of five vectors of thirty rows."""


class Clocked:
    """A ledger, its time, and a running job."""

    def __init__(self) -> None:
        self.now = 1e9
        self.ledger = MemoryLedger(Policy(lease_seconds=60), clock=lambda: self.now)

    def claim(self) -> Claim:
        spec = JobSpec.model_validate(spec_body())
        return claimed(self.ledger, self.ledger.create(new_job_id(), spec).job.id)


@pytest.fixture
def clocked() -> Clocked:
    return Clocked()


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return worker_settings(tmp_path)


def stored_files(settings: WorkerSettings) -> list[str]:
    return sorted(path.name for path in settings.results_dir.rglob("*") if path.is_file())


def test_what_is_committed_stays(clocked: Clocked, settings: WorkerSettings) -> None:
    claim = clocked.claim()
    with staging(clocked.ledger, claim, settings) as sink:
        done, _ = fill(sink)
        clocked.ledger.commit(claim, done)
    assert stored_files(settings) == [f"{claim.job_id}-{claim.fence}.parquet"]
    assert next(settings.results_dir.iterdir()).name == settings.tenant
    assert list(settings.cache_dir.iterdir()) == [], "the temporary folder is gone"
    result = clocked.ledger.get(claim.job_id).result
    assert result is not None
    assert result.stored is not None
    assert result.stored.name in stored_files(settings)


@pytest.mark.parametrize(("limit", "spills"), [(BYTES - 1, True), (BYTES, False)])
def test_only_what_is_over_the_limit_goes_to_a_file(clocked: Clocked, tmp_path: Path, limit: int, spills: bool) -> None:
    settings = worker_settings(tmp_path, max_redis_result_bytes=limit)
    claim = clocked.claim()
    with staging(clocked.ledger, claim, settings) as sink:
        done, vectors = fill(sink)
        assert sum(4 * len(values) for values in vectors.values()) == BYTES
        assert (done.stored is not None) == spills
        clocked.ledger.commit(claim, done)
    assert len(stored_files(settings)) == spills
    assert clocked.ledger.get(claim.job_id).status is JobState.SUCCEEDED


@pytest.mark.parametrize("error", [Cancelled(), LeaseLost(), StorageFailed("full"), ValueError("ours")])
def test_an_attempt_that_ends_without_a_commit_leaves_nothing(
    clocked: Clocked, settings: WorkerSettings, error: Exception
) -> None:
    claim = clocked.claim()

    def attempt() -> None:
        with staging(clocked.ledger, claim, settings) as sink:
            fill(sink)
            assert len(stored_files(settings)) == 1
            raise error

    with pytest.raises(type(error)):
        attempt()
    assert stored_files(settings) == []


def test_a_commit_that_is_refused_leaves_the_other_attempts_file(clocked: Clocked, settings: WorkerSettings) -> None:
    late = clocked.claim()

    def attempt() -> None:
        with staging(clocked.ledger, late, settings) as sink:
            done, _ = fill(sink)
            clocked.now += 61
            clocked.ledger.reconcile()
            second = claimed(clocked.ledger, late.job_id, 2)
            with staging(clocked.ledger, second, settings) as theirs:
                clocked.ledger.commit(second, fill(theirs)[0])
            assert len(stored_files(settings)) == 2
            clocked.ledger.commit(late, done)

    with pytest.raises(LeaseLost):
        attempt()
    assert stored_files(settings) == [f"{late.job_id}-2.parquet"]


def test_a_commit_of_a_job_that_is_being_cancelled_leaves_nothing(clocked: Clocked, settings: WorkerSettings) -> None:
    claim = clocked.claim()
    with staging(clocked.ledger, claim, settings) as sink:
        done, _ = fill(sink)
        clocked.ledger.request_cancel(claim.job_id)
        clocked.ledger.commit(claim, done)
    assert clocked.ledger.get(claim.job_id).status is JobState.CANCELLED
    assert stored_files(settings) == []


def test_a_commit_whose_answer_was_lost_keeps_its_file(clocked: Clocked, settings: WorkerSettings) -> None:
    claim = clocked.claim()

    def attempt() -> None:
        with staging(clocked.ledger, claim, settings) as sink:
            clocked.ledger.commit(claim, fill(sink)[0])
            raise QueueUnavailable("no answer")

    with pytest.raises(QueueUnavailable):
        attempt()
    assert len(stored_files(settings)) == 1


def test_a_full_disk_leaves_nothing(clocked: Clocked, settings: WorkerSettings) -> None:
    claim = clocked.claim()
    with (
        files_no_larger_than(20_000),
        pytest.raises(StorageFailed, match="full"),
        staging(clocked.ledger, claim, settings) as sink,
    ):
        fill(sink, rows=5000)
    assert stored_files(settings) == []
    assert list(settings.cache_dir.iterdir()) == []


def test_a_store_without_room_leaves_nothing(clocked: Clocked, tmp_path: Path) -> None:
    """Its folder is a file: nothing can be put there."""
    (tmp_path / "results").write_text("in the way")
    settings = worker_settings(tmp_path)
    with pytest.raises(StorageFailed), staging(clocked.ledger, clocked.claim(), settings) as sink:
        fill(sink)
    assert list(settings.cache_dir.iterdir()) == []


def test_what_a_killed_worker_was_writing_is_removed_after_a_day(clocked: Clocked, settings: WorkerSettings) -> None:
    old, young = settings.cache_dir / ".results-old", settings.cache_dir / ".results-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "job.parquet").write_bytes(b"half")
    yesterday = time.time() - 90_000
    os.utime(old, (yesterday, yesterday))
    with staging(clocked.ledger, clocked.claim(), settings) as sink:
        fill(sink)
    assert list(settings.cache_dir.iterdir()) == [young]


def test_a_job_fails_as_storage_when_the_disk_is_full(clocked: Clocked, settings: WorkerSettings) -> None:
    spec = JobSpec.model_validate(spec_body())
    job_id = clocked.ledger.create(new_job_id(), spec).job.id

    def work(spec: JobSpec, reporter: Reporter, sink: Sink, crew: Crew) -> Manifest:
        assert isinstance(sink, Staging)
        with files_no_larger_than(20_000):
            return fill(sink, rows=5000)[0]

    attend(job_id, 1, Equipment(settings, clocked.ledger, work, no_help))
    job = clocked.ledger.get(job_id)
    assert job.status is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == ("storage", True)
    assert job.result is None
    assert stored_files(settings) == []
    assert list(settings.cache_dir.iterdir()) == []
