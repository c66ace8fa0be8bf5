"""What the queue calls: the doorbell's messages, and what this process has at hand to answer them.

torch is imported when the first job arrives, so a worker is ready in under a second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from celery import shared_task

from ascribe.broker import RUN_TASK
from ascribe.ledger.opening import open_ledger
from ascribe.result import Manifest
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from worker.attempt import Equipment, attend
from worker.progress import Reporter

if TYPE_CHECKING:
    from worker.pipeline import Bench, Sink


@shared_task(name=RUN_TASK)  # type: ignore[untyped-decorator]  # celery has no annotations
def run(job_id: str, attempt: int) -> None:
    """Work on one attempt of a job, if it is still there to be claimed. Safe to run twice."""
    attend(job_id, attempt, equipment())


@cache
def equipment() -> Equipment:
    settings = WorkerSettings()
    return Equipment(settings, open_ledger(settings), _pipeline(settings))


def _pipeline(settings: WorkerSettings) -> Callable[[JobSpec, Reporter, Sink], Manifest]:
    @cache
    def bench() -> Bench:
        from worker.pipeline import Bench

        return Bench(settings)

    def work(spec: JobSpec, reporter: Reporter, sink: Sink) -> Manifest:
        from worker import pipeline

        return pipeline.run(spec, bench(), reporter, sink)

    return work
