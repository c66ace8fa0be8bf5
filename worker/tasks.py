"""What the queue calls: the doorbell's messages, and what this process has at hand to answer them.

torch is imported when the first job arrives, so a worker is ready in under a second.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from celery import shared_task
from celery.exceptions import Reject
from celery.signals import worker_process_init

from ascribe.broker import RUN_TASK
from ascribe.ledger.base import model_key
from ascribe.ledger.opening import open_ledger
from ascribe.result import Manifest
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from worker import draining
from worker.attempt import Equipment, attend
from worker.progress import Reporter

if TYPE_CHECKING:
    from worker.pipeline import Bench, Sink


@worker_process_init.connect  # type: ignore[untyped-decorator]  # celery has no annotations
def _begin(**_: Any) -> None:
    """In the pool's child, which loads this module and not :mod:`worker.app`."""
    draining.listen()


@shared_task(name=RUN_TASK, Request="worker.mourning:Mourned")  # type: ignore[untyped-decorator]
def run(job_id: str, attempt: int) -> None:
    """Work on one attempt of a job, if it is still there to be claimed. Safe to run twice."""
    if draining.told.is_set():
        raise Reject("this worker is to stop", requeue=True)  # back into the queue, for another one
    attend(job_id, attempt, equipment())


@cache
def equipment() -> Equipment:
    settings = WorkerSettings()
    pipeline = Pipeline(settings)
    return Equipment(settings, open_ledger(settings), pipeline, pipeline.warm)


class Pipeline:
    """Does jobs, and keeps between them what may serve again. Imports the numerics with the first one."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._bench: Bench | None = None

    def __call__(self, spec: JobSpec, reporter: Reporter, sink: Sink) -> Manifest:
        from worker import pipeline

        self._bench = self._bench or pipeline.Bench(self._settings)
        return pipeline.run(spec, self._bench, reporter, sink)

    def warm(self) -> str:
        """Key of the model that is loaded."""
        loaded = self._bench and self._bench.models.loaded
        return model_key(loaded) if loaded else ""
