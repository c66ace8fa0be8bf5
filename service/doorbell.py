"""Rings a worker through Celery. The one module of the service that loads it, and only at the first ring."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ascribe.broker import RUN_TASK, celery_options
from ascribe.ledger.base import Ring
from ascribe.settings import Settings

if TYPE_CHECKING:
    from celery import Celery


class CeleryDoorbell:
    """Sends ``(job id, attempt)`` to the queue; the message carries nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def ring(self, ring: Ring) -> None:
        # No retry here: the ledger rings again, and knows by then whether it still must.
        self._celery.send_task(RUN_TASK, args=[ring.job_id, ring.attempt], retry=False)

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
