"""One attempt beside the work: which job it takes, and what it does when its worker is told to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ascribe.errors import QueueUnavailable
from ascribe.job import JobState, Phase
from ascribe.ledger.base import Policy, model_key
from ascribe.ledger.memory import MemoryLedger
from ascribe.result import MEAN, Manifest
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from tests.support.jobs import Shelf, make_spec, make_workshop, no_help
from tests.support.ledger import create, manifest, spec
from worker import draining
from worker.attempt import Equipment, attend
from worker.pipeline import Sink
from worker.progress import Reporter
from worker.sharing import Alone, Crew
from worker.tasks import Pipeline


@pytest.fixture
def told() -> Iterator[None]:
    draining.told.set()
    yield
    draining.told.clear()


def _work(job: JobSpec, reporter: Reporter, sink: Sink, crew: Crew) -> Manifest:
    with reporter.phase(Phase.SOLVING, 2):
        reporter.advance()
    sink.stage(MEAN, [b"\0" * 4])
    return manifest(MEAN)


def _equipment(warm: str = "") -> tuple[Equipment, MemoryLedger]:
    ledger = MemoryLedger(Policy())
    return Equipment(WorkerSettings(), ledger, _work, no_help, lambda: warm), ledger


@pytest.mark.usefixtures("told")
def test_a_worker_told_to_stop_hands_back_and_it_costs_no_attempt() -> None:
    equipment, ledger = _equipment()
    job_id = create(ledger)
    for attempt in range(1, 6):
        attend(job_id, attempt, equipment)
    job = ledger.get(job_id)
    assert (job.status, job.attempt) == (JobState.QUEUED, 6)
    assert [one.outcome for one in job.attempts] == ["handed_back"] * 5
    draining.told.clear()
    attend(job_id, 6, equipment)
    assert ledger.get(job_id).status is JobState.SUCCEEDED


@pytest.mark.usefixtures("told")
def test_a_job_to_be_cancelled_is_not_handed_back() -> None:
    equipment, ledger = _equipment()
    job_id = create(ledger)

    def cancelled_meanwhile(job: JobSpec, reporter: Reporter, sink: Sink, crew: Crew) -> Manifest:
        ledger.request_cancel(job_id)
        return _work(job, reporter, sink, crew)

    attend(job_id, 1, Equipment(equipment.settings, ledger, cancelled_meanwhile, no_help))
    assert ledger.get(job_id).status is JobState.CANCELLED


def test_a_ledger_that_stays_away_fails_no_job() -> None:
    ledger = MemoryLedger(Policy(lease_seconds=0.1))

    def away(job: JobSpec, reporter: Reporter, sink: Sink, crew: Crew) -> Manifest:
        raise QueueUnavailable("for longer than the lease")

    job_id = create(ledger)
    attend(job_id, 1, Equipment(WorkerSettings(), ledger, away, no_help))
    assert ledger.get(job_id).status is JobState.RUNNING
    time.sleep(0.11)
    assert ledger.reconcile().requeued == (job_id,)


def test_a_worker_takes_the_job_whose_model_it_has() -> None:
    wanted = spec(base="bert")
    equipment, ledger = _equipment(warm=model_key(wanted.model))
    rung, warm = create(ledger), create(ledger, wanted)
    attend(rung, 1, equipment)
    assert (ledger.get(rung).status, ledger.get(warm).status) == (JobState.QUEUED, JobState.SUCCEEDED)
    attend(rung, 1, equipment)
    assert ledger.get(rung).status is JobState.SUCCEEDED


def test_the_warm_model_is_the_one_that_was_loaded_last(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    pipeline = Pipeline(workshop.bench.settings)
    assert pipeline.warm() == ""
    pipeline(make_spec(), Reporter(lambda _: False), Shelf(), Alone())
    assert pipeline.warm() == "base\0adapter"
