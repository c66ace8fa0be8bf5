"""Rings a worker through Celery. The one module of the service that loads it, and only at the first ring."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ascribe.broker import HELP_TASK, RUN_TASK, celery_options
from ascribe.ledger.base import Call, Ring
from ascribe.settings import Settings

if TYPE_CHECKING:
    from celery import Celery


class CeleryDoorbell:
    """Sends a job's id, and the attempt where one is to be claimed; the message carries nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def ring(self, ring: Ring) -> None:
        # No retry here: the ledger rings again, and knows by then whether it still must.
        self._celery.send_task(RUN_TASK, args=[ring.job_id, ring.attempt], queue=ring.queue, retry=False)

    def call(self, call: Call) -> None:
        self._celery.send_task(HELP_TASK, args=[call.job_id], queue=call.queue, retry=False)

    @cached_property
    def _celery(self) -> Celery:
        from celery import Celery

        app = Celery("ascribe-service", set_as_current=False)
        app.conf.update(celery_options(self._settings))
        return app


class SilentDoorbell:
    """Rings nowhere: for what needs an application and no worker, such as writing its document."""

    def ring(self, ring: Ring) -> None:
        pass

    def call(self, call: Call) -> None:
        pass
