"""Queues and priorities, as real Celery workers take jobs from them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ascribe.job import JobState
from ascribe.spec import Priority, Queue
from tests.chaos.bench import ROOT, ChaosBench
from tests.chaos.noop_work import noop_spec
from tests.support.waiting import await_that


def _submit(bench: ChaosBench, *, priority: Priority = "normal", queue: Queue = "cpu", sleep_ms: int = 20) -> str:
    return bench.submit(noop_spec(sleep_ms=sleep_ms).model_copy(update={"priority": priority, "queue": queue}))


def test_high_goes_before_normal_before_low(tmp_path: Path) -> None:
    given: tuple[Priority, ...] = ("low", "normal", "high", "low", "high", "normal")
    with ChaosBench(tmp_path, workers=1) as bench:
        first = _submit(bench, priority="low", sleep_ms=2500)
        await_that(lambda: bench.ledger.get(first).status is JobState.RUNNING, "the first job", within_seconds=20)
        jobs = {_submit(bench, priority=priority): priority for priority in given}
        time.sleep(1.2)  # more than it takes the reconciler to ring for all of them
        assert bench.ledger.get(first).status is JobState.RUNNING
        bench.await_ended(len(jobs) + 1, within_seconds=30)
        started = {job_id: bench.ledger.get(job_id).started_at for job_id in jobs}
    in_order = [jobs[job_id] for job_id in sorted(jobs, key=lambda job_id: str(started[job_id]))]
    assert in_order == ["high", "high", "normal", "normal", "low", "low"]


def test_a_job_waits_for_a_worker_of_its_queue(tmp_path: Path) -> None:
    env = {"ASCRIBE_QUEUE": "gpu", "ASCRIBE_DEVICE": "cuda:0"}
    with ChaosBench(tmp_path, workers=1, worker_env=lambda number: env if number == 2 else {}) as bench:
        for_gpu, for_cpu = _submit(bench, queue="gpu"), _submit(bench, queue="cpu")
        bench.await_ended(1, within_seconds=20)
        assert bench.ledger.get(for_cpu).status is JobState.SUCCEEDED
        assert bench.ledger.get(for_gpu).status is JobState.QUEUED
        counts = bench.ledger.counts().queues
        assert (counts["gpu"].queued, counts["cpu"].queued) == (1, 0)

        worker = bench.start_worker()
        bench.await_ended(2, within_seconds=30)
        assert bench.ledger.get(for_gpu).attempts[0].worker in worker.claims_as
        assert {(info.queue, info.device) for info in bench.ledger.workers()} == {("cpu", "cpu"), ("gpu", "cuda:0")}


def test_the_parent_of_a_worker_loads_no_torch() -> None:
    code = "import sys, worker.app, worker.tasks; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.strip() == "[]"
