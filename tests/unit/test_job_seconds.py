"""A job that runs for too long fails, and says which limit it met."""

from __future__ import annotations

from pathlib import Path

from ascribe.job import JobState
from ascribe.ledger.base import Policy
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.memory import MemoryLedger
from ascribe.settings import WorkerSettings
from tests.support.jobs import make_spec, make_workshop
from worker import pipeline
from worker.attempt import Equipment, attend


def test_a_job_over_its_seconds_fails_as_limit_exceeded(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    ledger = MemoryLedger(Policy())
    settings = WorkerSettings(data_root=workshop.root, max_job_seconds=1e-6)
    equipment = Equipment(
        settings,
        ledger,
        lambda spec, reporter, sink, crew: pipeline.run(spec, workshop.bench, reporter, sink, crew),
        lambda spec, on_rows: pipeline.helping(spec, workshop.bench, on_rows),
    )
    job_id = ledger.create(new_job_id(), make_spec()).job.id

    attend(job_id, 1, equipment)

    job = ledger.get(job_id)
    assert job.status == JobState.FAILED
    assert job.error is not None
    assert job.error.code == "limit_exceeded"
    assert "max_job_seconds" in job.error.detail
    assert job.error.retryable is False
