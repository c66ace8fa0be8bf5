"""What the queue calls: the doorbell's messages, and what this process has at hand to answer them.

torch is imported when the first job arrives, so a worker is ready in under a second.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

from celery import shared_task
from celery.signals import worker_process_init

from ascribe.broker import HELP_TASK, RUN_TASK
from ascribe.ledger.base import model_key
from ascribe.ledger.opening import open_ledger
from ascribe.result import Manifest
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from worker import draining
from worker.attempt import Equipment, attend
from worker.helping import help_with
from worker.progress import Reporter

if TYPE_CHECKING:
    from worker.pipeline import Bench, Sink
    from worker.sharing import Crew


@worker_process_init.connect  # type: ignore[untyped-decorator]  # celery has no annotations
def _begin(**_: Any) -> None:
    """In the pool's child, which loads this module and not :mod:`worker.app`."""
    draining.listen()


@shared_task(name=RUN_TASK, Request="worker.mourning:Mourned")  # type: ignore[untyped-decorator]
def run(job_id: str, attempt: int) -> None:
    """Work on one attempt of a job, if it is still there to be claimed. Safe to run twice."""
    draining.refuse()
    attend(job_id, attempt, equipment())


@shared_task(name=HELP_TASK)  # type: ignore[untyped-decorator]
def help_(job_id: str) -> None:
    """Take parts of a job that another worker owns. Safe to run twice, and at any time."""
    draining.refuse()
    help_with(job_id, equipment())


@cache
def equipment() -> Equipment:
    settings = WorkerSettings()
    pipeline = Pipeline(settings)
    return Equipment(settings, open_ledger(settings), pipeline, pipeline.help, pipeline.warm)


class Pipeline:
    """Does jobs, and keeps between them what may serve again. Imports the numerics with the first one."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._bench: Bench | None = None

    def __call__(self, spec: JobSpec, reporter: Reporter, sink: Sink, crew: Crew) -> Manifest:
        from worker import pipeline

        return pipeline.run(spec, self._open_bench(), reporter, sink, crew)

    def help(self, spec: JobSpec, on_rows: Callable[[int], None]) -> AbstractContextManager[Callable[[str], None]]:
        from worker import pipeline

        return pipeline.helping(spec, self._open_bench(), on_rows)

    def _open_bench(self) -> Bench:
        from worker.pipeline import Bench

        self._bench = self._bench or Bench(self._settings)
        return self._bench

    def warm(self) -> str:
        """Key of the model that is loaded."""
        loaded = self._bench and self._bench.models.loaded
        return model_key(loaded) if loaded else ""
