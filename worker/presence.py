"""A thread that says this worker is here, and with which versions it makes gradients."""

from __future__ import annotations

import logging
import threading

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Ledger, WorkerInfo

EVERY_SECONDS = 5.0
FOR_SECONDS = 20.0

log = logging.getLogger(__name__)


class Presence(threading.Thread):
    """Says every few seconds that this worker is here, and with which versions it makes gradients."""

    def __init__(self, ledger: Ledger, info: WorkerInfo) -> None:
        super().__init__(name="presence", daemon=True)
        self._ledger = ledger
        self._info = info
        self._stopped = threading.Event()

    def run(self) -> None:
        while True:
            try:
                self._ledger.register_worker(self._info, FOR_SECONDS)
            except QueueUnavailable:
                log.warning("Redis does not answer; this worker cannot be seen")
            except Exception:
                log.exception("this worker cannot be seen")  # and goes on trying: its jobs do not depend on it
            if self._stopped.wait(EVERY_SECONDS):
                return

    def stop(self) -> None:
        self._stopped.set()
