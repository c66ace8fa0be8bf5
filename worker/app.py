"""The Celery application, and what a worker does beside its tasks: present itself, keep the ledger tidy.

celery -A worker.app worker --without-gossip --without-mingle -Q cpu
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import Celery
from celery.signals import worker_ready, worker_shutting_down

from ascribe.broker import RUN_TASK, celery_options
from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Ledger, Ring
from ascribe.ledger.opening import open_ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.settings import WorkerSettings
from worker.environment import worker_info

PRESENT_EVERY_SECONDS = 5.0
PRESENT_FOR_SECONDS = 20.0

log = logging.getLogger(__name__)
settings = WorkerSettings()
app = Celery("ascribe", include=["worker.tasks"])
app.conf.update(celery_options(settings), task_default_queue=settings.queue)


class CeleryDoorbell:
    """Rings through this worker's own connection."""

    def ring(self, ring: Ring) -> None:
        app.send_task(RUN_TASK, args=[ring.job_id, ring.attempt], queue=settings.queue, retry=False)


class Presence(threading.Thread):
    """Says every few seconds that this worker is here, and with which versions it makes gradients."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(name="presence", daemon=True)
        self._ledger = ledger
        self._info = worker_info(settings)
        self._stopped = threading.Event()

    def run(self) -> None:
        while True:
            try:
                self._ledger.register_worker(self._info, PRESENT_FOR_SECONDS)
            except QueueUnavailable:
                log.warning("Redis does not answer; this worker cannot be seen")
            if self._stopped.wait(PRESENT_EVERY_SECONDS):
                return

    def stop(self) -> None:
        self._stopped.set()


@worker_ready.connect
def _start(**_: Any) -> None:
    ledger = open_ledger(settings)
    upkeep = Upkeep(ledger, CeleryDoorbell(), every_seconds=settings.reconcile_seconds)
    presence = Presence(ledger)
    upkeep.start()
    presence.start()

    @worker_shutting_down.connect(weak=False)
    def _stop(**_: Any) -> None:
        presence.stop()
        upkeep.stop()
