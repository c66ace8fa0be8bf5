"""Workers that are told to stop: real Celery processes, whose work is a sleep with a tick every 50 ms."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ascribe.embedded.guard import signal_group
from ascribe.job import Job, JobState
from tests.chaos.bench import ChaosBench, Worker, group_members
from tests.chaos.noop_work import noop_spec
from tests.support.waiting import await_that

LONG = noop_spec(sleep_ms=60_000)
LEASE_SECONDS = 30
"""So long that whatever goes on within a few seconds does not go on because a lease ran out."""
GONE_SECONDS = 6.0
"""A worker that has nothing to wait for ends within two or three seconds; the rest is for a busy machine."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ChaosBench]:
    with ChaosBench(tmp_path, workers=1, env={"ASCRIBE_LEASE_SECONDS": str(LEASE_SECONDS)}) as bench:
        yield bench


def _running(bench: ChaosBench) -> str:
    """A long job that is at work."""
    job_id = bench.submit(LONG)
    await_that(lambda: bench.ledger.get(job_id).progress, "progress", within_seconds=20)
    return job_id


def _ended(worker: Worker, within_seconds: float = GONE_SECONDS) -> int:
    """The exit code, once the whole group is gone."""
    code = worker.process.wait(within_seconds)
    await_that(lambda: not list(group_members(worker.process.pid)), "the child's end", within_seconds=5)
    return code


def _outcomes(job: Job) -> list[str | None]:
    return [attempt.outcome for attempt in job.attempts]


@pytest.mark.parametrize("to", ["parent", "group"])
def test_a_worker_told_to_stop_hands_its_job_back(bench: ChaosBench, to: str) -> None:
    job_id, worker = _running(bench), bench.workers[0]
    began = time.monotonic()
    if to == "group":
        signal_group(worker.process.pid, signal.SIGTERM)
    else:
        os.kill(worker.process.pid, signal.SIGTERM)

    handed_back = await_that(lambda: bench.ledger.get(job_id).attempt == 2, "handed back", within_seconds=GONE_SECONDS)
    assert _ended(worker) == 0
    print(f"{to}: handed back after {handed_back:.2f} s, gone after {time.monotonic() - began:.2f} s")

    job = bench.ledger.get(job_id)
    assert (job.status, _outcomes(job)) == (JobState.QUEUED, ["handed_back"])
    assert bench.ledger.workers() == [], "it has said that it is gone"
    assert bench.ledger.counts().totals.get("lease_lost", 0) == 0


def test_a_child_that_is_told_alone_makes_room_for_another(bench: ChaosBench) -> None:
    job_id = _running(bench)
    os.kill(_child(bench, job_id), signal.SIGTERM)
    await_that(lambda: len(bench.ledger.get(job_id).attempts) == 2, "a second attempt", within_seconds=15)
    job = bench.ledger.get(job_id)
    assert _outcomes(job) == ["handed_back", None]
    assert job.attempts[0].worker != job.attempts[1].worker
    assert bench.workers[0].process.poll() is None


def _child(bench: ChaosBench, job_id: str) -> int:
    return int(bench.ledger.get(job_id).attempts[-1].worker.rpartition("-")[2])


def test_another_worker_goes_on_at_once(bench: ChaosBench) -> None:
    job_id, worker = _running(bench), bench.workers[0]
    other = bench.start_worker()
    bench.await_workers(2)
    signal_group(worker.process.pid, signal.SIGTERM)
    seconds = await_that(lambda: len(bench.ledger.get(job_id).attempts) == 2, "a second attempt", within_seconds=10)
    print(f"another worker had claimed it after {seconds:.2f} s")
    assert bench.ledger.get(job_id).attempts[-1].worker in other.claims_as


def test_an_idle_worker_ends_too(bench: ChaosBench) -> None:
    signal_group(bench.workers[0].process.pid, signal.SIGTERM)
    assert _ended(bench.workers[0]) == 0


@pytest.mark.parametrize(("number", "outcome"), [(signal.SIGTERM, "lost"), (signal.SIGQUIT, None)])
def test_said_again_it_ends_at_once(bench: ChaosBench, number: signal.Signals, outcome: str | None) -> None:
    """The work is silent for a minute: it cannot drain. After SIGQUIT Celery looks no more: the lease has to tell."""
    job_id, worker = bench.submit(noop_spec(before_stage_ms=60_000)), bench.workers[0]
    await_that(lambda: bench.ledger.get(job_id).status is JobState.RUNNING, "a start", within_seconds=20)
    time.sleep(0.5)
    for again in (signal.SIGTERM, number, number):
        os.kill(worker.process.pid, again)
        time.sleep(0.5)
    _ended(worker, 10)
    bench.ledger.reconcile()
    assert _outcomes(bench.ledger.get(job_id)) == [outcome]


def test_a_killed_child_is_missed_at_once(bench: ChaosBench) -> None:
    job_id = _running(bench)
    os.kill(_child(bench, job_id), signal.SIGKILL)
    seconds = await_that(lambda: len(bench.ledger.get(job_id).attempts) == 2, "a second attempt", within_seconds=10)
    print(f"the next attempt began after {seconds:.2f} s, of a lease of {LEASE_SECONDS} s")
    assert _outcomes(bench.ledger.get(job_id)) == ["lost", None]
