"""How a worker shows that it is here: to the ledger, and to whoever probes this machine."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Ledger, WorkerInfo

EVERY_SECONDS = 5.0
FOR_SECONDS = 20.0
TURN_SECONDS = 1.0
"""How often the main loop shows that it turns."""

log = logging.getLogger(__name__)


class Presence(threading.Thread):
    """Says every few seconds that this worker is here, and with which versions it makes gradients."""

    def __init__(self, ledger: Ledger, info: WorkerInfo, alive_file: Path | None = None) -> None:
        super().__init__(name="presence", daemon=True)
        self._ledger = ledger
        self._info = info
        self._alive_file = alive_file
        self._stopped = threading.Event()

    def turn(self) -> None:
        """To be called by the main loop, every ``TURN_SECONDS``: see :mod:`worker.probe`."""
        if self._alive_file:
            self._alive_file.touch()

    def run(self) -> None:
        while True:
            self._register(FOR_SECONDS)
            if self._stopped.wait(EVERY_SECONDS):
                break
        self._register(0)  # gone: nobody counts on it from now on

    def stop(self) -> None:
        """Never waits."""
        self._stopped.set()

    def _register(self, for_seconds: float) -> None:
        try:
            self._ledger.register_worker(self._info, for_seconds)
        except QueueUnavailable:
            log.warning("Redis does not answer; this worker cannot be seen")
            # Celery waits for the broker now, and its loop stands still. Ending the process would not help.
            self.turn()
        except Exception:
            log.exception("this worker cannot be seen")  # and goes on trying: its jobs do not depend on it
