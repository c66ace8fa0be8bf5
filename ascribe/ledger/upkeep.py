"""The reconciler's thread: takes messages from the ledger and sends them, in every service and worker process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Call, Doorbell, Ledger, Ring

log = logging.getLogger(__name__)


class Upkeep:
    """Reconciles every ``every_seconds``, and at once after a :meth:`nudge`.

    The ledger counts a ring as sent when it hands it out. One that could not be sent stays here and is tried first in
    the next pass; should this process die with it, the ledger hands it out again after ``ring_again_seconds``. A call
    for help that could not be sent is forgotten: by the next one the work may be done.
    """

    def __init__(self, ledger: Ledger, doorbell: Doorbell, *, every_seconds: float) -> None:
        self._ledger = ledger
        self._doorbell = doorbell
        self._every_seconds = every_seconds
        self._unsent: dict[str, Ring] = {}
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ascribe-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        """Something was created: look now. Never waits."""
        self._wake.set()

    def stop(self) -> None:
        """Ends after the call to Redis that is under way, if any. Rings not sent yet are rung by others."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            while self._pass() and not self._stopping.is_set():
                pass  # a pass takes a bounded number of jobs: go on while there are more
            self._wake.wait(self._every_seconds)

    def _pass(self) -> bool:
        """Whether it found rings to send and sent them all."""
        try:
            found = self._ledger.reconcile()
        except QueueUnavailable as error:
            log.warning("upkeep cannot reach the ledger, will try again", extra={"detail": error.detail})
            return False
        except Exception:
            log.exception("upkeep failed, will try again")
            return False
        for job_id in found.requeued:
            log.warning("a worker went silent: its job is queued again", extra={"job_id": job_id})
        for job_id in found.failed:
            log.warning("a worker went silent in the last attempt: its job failed", extra={"job_id": job_id})
        self._unsent.update((ring.job_id, ring) for ring in found.rings)
        return self._ring() and self._call(found.calls) and bool(found.rings)

    def _ring(self) -> bool:
        """Rings what is unsent, and leaves the rest for the next pass at the first failure: each may be a timeout."""
        for job_id, ring in list(self._unsent.items()):
            if not self._send(partial(self._doorbell.ring, ring), waiting=len(self._unsent)):
                return False
            del self._unsent[job_id]
        return True

    def _call(self, calls: Sequence[Call]) -> bool:
        return all(self._send(partial(self._doorbell.call, call), waiting=len(calls)) for call in calls)

    def _send(self, message: Callable[[], None], *, waiting: int) -> bool:
        if self._stopping.is_set():
            return False
        try:
            message()
        except Exception as error:  # noqa: BLE001 - a doorbell may raise anything
            # The exception's text may hold the broker's URL; its type is enough.
            facts = {"waiting": waiting, "error": type(error).__name__}
            log.warning("messages cannot be sent, will try again", extra=facts)
            return False
        return True
