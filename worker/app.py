"""The Celery application, and what a worker does beside its tasks: present itself, keep the ledger tidy.

celery -A worker.app worker --without-gossip --without-mingle -Q cpu
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_ready, worker_shutting_down

from ascribe.broker import HELP_TASK, RUN_TASK, celery_options
from ascribe.ledger.base import Call, Ring
from ascribe.ledger.opening import open_ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.settings import WorkerSettings
from worker import logs
from worker.environment import worker_info
from worker.presence import Presence

settings = WorkerSettings()
app = Celery("ascribe", include=["worker.tasks", logs.__name__])
app.conf.update(celery_options(settings), task_default_queue=settings.queue)


class CeleryDoorbell:
    """Rings through this worker's own connection."""

    def ring(self, ring: Ring) -> None:
        app.send_task(RUN_TASK, args=[ring.job_id, ring.attempt], queue=ring.queue, retry=False)

    def call(self, call: Call) -> None:
        app.send_task(HELP_TASK, args=[call.job_id], queue=call.queue, retry=False)


@worker_ready.connect  # type: ignore[untyped-decorator]  # celery has no annotations
def _start(**_: Any) -> None:
    ledger = open_ledger(settings)
    upkeep = Upkeep(ledger, CeleryDoorbell(), every_seconds=settings.reconcile_seconds)
    presence = Presence(ledger, worker_info(settings))
    upkeep.start()
    presence.start()

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def _stop(**_: Any) -> None:
        presence.stop()
        upkeep.stop()
