"""The pool's child was killed in the middle of a job: its parent knows at once what else the lease must tell."""

from __future__ import annotations

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.utils.dispatch import Signal
from celery.worker.request import Request

child_died = Signal(name="child_died", providing_args={"job_id", "attempt", "pid"})
"""Sent in the parent, with the arguments of the task that the child had."""


class Mourned(Request):  # type: ignore[misc]  # celery has no annotations
    """A ring in the hands of the pool.

    A child that took another job in place of the one that was rung is not found out here: its lease runs out.
    """

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        error = exc_info.exception
        if isinstance(getattr(error, "exc", error), WorkerLostError):  # billiard wraps some, with their traceback
            job_id, attempt = self.args
            child_died.send(sender=self, job_id=job_id, attempt=attempt, pid=self.worker_pid)
        super().on_failure(exc_info, *args, **kwargs)
