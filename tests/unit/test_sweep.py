"""The sweep removes every file that nobody can need, and no other."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Ledger, Policy
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.memory import MemoryLedger
from ascribe.results.files import open_results
from ascribe.results.sweep import Sweeper, sweep
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from tests.support.handmade import spec_body
from tests.support.spilled import claimed, fill, finish, staging, worker_settings

NOW = timedelta(seconds=-5)
"""Every file is old enough."""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.now = 1e9
        policy = Policy(lease_seconds=60, result_ttl_seconds=100, record_ttl_seconds=1000)
        self.ledger = MemoryLedger(policy, clock=lambda: self.now)
        self.settings: WorkerSettings = worker_settings(folder)
        self.files = open_results(self.settings)

    def job(self) -> str:
        return self.ledger.create(new_job_id(), JobSpec.model_validate(spec_body())).job.id

    def finished(self) -> str:
        job_id = self.job()
        finish(self.ledger, job_id, self.settings)
        return job_id

    def killed(self) -> str:
        """A job whose worker put its file and was killed."""
        job_id = self.job()
        fill(staging(self.ledger, claimed(self.ledger, job_id), self.settings))
        return job_id

    def kept(self) -> set[str]:
        return {name for name, _ in self.files.names("")}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_results_stay_until_they_expire(bench: Bench) -> None:
    job_id = bench.finished()
    assert sweep(bench.ledger, bench.files, age=NOW) == 0
    assert bench.kept() == {f"{job_id}-1.parquet"}
    bench.now += 101
    assert sweep(bench.ledger, bench.files, age=NOW) == 1
    assert bench.kept() == set()


def test_what_is_left_of_a_deleted_job_goes(bench: Bench) -> None:
    job_id, other = bench.finished(), bench.finished()
    bench.ledger.delete(job_id)
    assert sweep(bench.ledger, bench.files, age=NOW) == 1
    assert bench.kept() == {f"{other}-1.parquet"}


def test_a_killed_workers_file_goes_when_its_job_has_ended(bench: Bench) -> None:
    job_id = bench.killed()
    assert sweep(bench.ledger, bench.files, age=NOW) == 0, "it may still be committed"
    bench.now += 61
    bench.ledger.reconcile()
    second = claimed(bench.ledger, job_id, 2)
    with staging(bench.ledger, second, bench.settings) as sink:
        bench.ledger.commit(second, fill(sink)[0])
    assert bench.kept() == {f"{job_id}-1.parquet", f"{job_id}-2.parquet"}
    assert sweep(bench.ledger, bench.files, age=NOW) == 1
    assert bench.kept() == {f"{job_id}-2.parquet"}


def test_a_cancelled_jobs_file_goes(bench: Bench) -> None:
    job_id = bench.killed()
    bench.ledger.request_cancel(job_id)
    bench.now += 61
    bench.ledger.reconcile()
    assert sweep(bench.ledger, bench.files, age=NOW) == 1


def test_young_files_and_those_of_others_are_let_be(bench: Bench, tmp_path: Path) -> None:
    for _ in range(2):
        bench.ledger.delete(bench.finished())
    (tmp_path / "note").write_text("mine")
    bench.files.put(tmp_path / "note", "README.parquet")
    old = sorted(bench.kept())[-1]
    hours_ago = time.time() - 4000
    for name in (old, "README.parquet"):
        os.utime(tmp_path / "results" / "default" / name, (hours_ago, hours_ago))
    before = bench.kept()
    assert sweep(bench.ledger, bench.files) == 1
    assert bench.kept() == before - {old}


def test_nothing_is_removed_while_nobody_can_be_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.finished()

    def away(job_id: str) -> None:
        raise QueueUnavailable("no answer")

    monkeypatch.setattr(bench.ledger, "get", away)
    with pytest.raises(QueueUnavailable):
        sweep(bench.ledger, bench.files, age=NOW)
    assert len(bench.kept()) == 1


def test_one_of_two_sweepers_has_the_turn(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ascribe.results.sweep")
    sweepers = [Sweeper(bench.ledger, bench.files) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    for sweeper in sweepers:
        sweeper.stop()
    assert [record.message for record in caplog.records] == ["results swept"]


def test_a_sweeper_outlives_a_ledger_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turns: list[float] = []

    def away(task: str, seconds: float) -> bool:
        turns.append(seconds)
        raise QueueUnavailable("no answer")

    monkeypatch.setattr(bench.ledger, "take_turn", away)
    monkeypatch.setattr("ascribe.results.sweep.EVERY_SECONDS", 0.01)
    ledger: Ledger = bench.ledger
    sweeper = Sweeper(ledger, bench.files)
    sweeper.start()
    deadline = time.monotonic() + 10
    while len(turns) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    sweeper.stop()
    assert len(turns) >= 3
    assert "cannot be swept" in caplog.text
