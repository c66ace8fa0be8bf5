"""The Celery application, and what a worker does beside its tasks: present itself, keep the ledger tidy, drain.

celery -A worker.app worker --without-gossip --without-mingle

It serves the queue ``ASCRIBE_QUEUE``. Nothing here, nor in what this imports, touches torch: on a GPU the pool's child
alone opens the device.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from ascribe.broker import call_message, celery_options, ring_message
from ascribe.ledger.base import Call, Ring
from ascribe.ledger.opening import open_ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.settings import WorkerSettings
from worker import draining, logs, presence, transport
from worker.environment import worker_info, worker_name
from worker.mourning import child_died

settings = WorkerSettings()
app = Celery("ascribe", include=["worker.tasks", logs.__name__])
app.conf.update(
    celery_options(settings),
    task_default_queue=settings.queue,
    broker_transport=f"{transport.__name__}:{transport.Transport.__name__}",
)


class CeleryDoorbell:
    """Rings through this worker's own connection."""

    def ring(self, ring: Ring) -> None:
        app.send_task(**ring_message(ring))

    def call(self, call: Call) -> None:
        app.send_task(**call_message(call))


@worker_ready.connect  # type: ignore[untyped-decorator]  # celery has no annotations
def _start(sender: Any, **_: Any) -> None:
    """``sender`` is the consumer, which holds the pool and the main loop's timer."""
    ledger = open_ledger(settings)
    upkeep = Upkeep(ledger, CeleryDoorbell(), every_seconds=settings.reconcile_seconds)
    here = presence.Presence(ledger, worker_info(settings), settings.alive_file)
    telling = draining.Telling()
    for thread in (upkeep, here, telling):
        thread.start()
    here.turn()
    sender.timer.call_repeatedly(presence.TURN_SECONDS, here.turn)

    @child_died.connect(weak=False)  # type: ignore[untyped-decorator]
    def _mourn(job_id: str, attempt: int, pid: int, **_: Any) -> None:
        ledger.mourn(job_id, attempt, worker_name(pid))
        upkeep.nudge()

    # In a signal handler: nothing that waits.
    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def _drain(how: str, **_: Any) -> None:
        here.stop()
        if how == "Warm":  # else Celery ends its children by itself, and has done so before this is called
            telling.begin(sender.pool.info["processes"])

    @worker_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
    def _stop(**_: Any) -> None:
        upkeep.stop()
        here.join(settings.redis_timeout_seconds)
