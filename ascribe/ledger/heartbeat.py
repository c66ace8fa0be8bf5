"""Keeps a lease, of a running attempt or of a part of one, as long as the work moves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import LeaseLost

log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that calls ``renew`` every ``every_seconds`` while the ``with`` block runs.

    ``renew`` extends the lease and answers True when the work is to be cancelled; ``facts`` say in the log what it is
    about. The thread stops renewing when :meth:`moved` was not called for ``stall_seconds``, or a hung solve would be
    kept alive for ever. ``lost`` is set when the ledger says so, or when Redis did not answer for as long as the lease
    lasts: by then somebody else may own the work. The work looks at ``cancel_requested`` and ``lost`` at every batch.
    Work that has not looked for another lease is hung: ``on_hung`` is called, and should end what no exception can
    reach.
    """

    def __init__(
        self,
        renew: Callable[[], bool | None],
        facts: Mapping[str, object],
        *,
        lease_seconds: float,
        every_seconds: float,
        stall_seconds: float,
        on_hung: Callable[[], None],
    ) -> None:
        self._renew = renew
        self._facts = facts
        self._lease_seconds = lease_seconds
        self._every_seconds = every_seconds
        self._stall_seconds = stall_seconds
        self._on_hung = on_hung
        self._moved_at = self._renewed_at = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ascribe-heartbeat", daemon=True)
        self.cancel_requested = threading.Event()
        self.lost = threading.Event()

    def moved(self) -> None:
        """The work got on: called at every batch."""
        self._moved_at = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self.lost.is_set() and not self._done.wait(self._every_seconds):
            if time.monotonic() - self._moved_at <= self._stall_seconds:
                self._try_to_renew()
            if time.monotonic() - self._renewed_at > self._lease_seconds:
                log.warning("not renewed for as long as the lease lasts: given up", extra=self._facts)
                self.lost.set()
        if self.lost.is_set() and not self._done.wait(self._lease_seconds):
            log.error("the work does not end: it is hung", extra=self._facts)
            self._on_hung()

    def _try_to_renew(self) -> None:
        asked_at = time.monotonic()  # the lease runs from some time after this
        try:
            if self._renew():
                self.cancel_requested.set()
            self._renewed_at = asked_at
        except QueueUnavailable as error:
            log.warning("cannot renew the lease, will try again", extra={**self._facts, "detail": error.detail})
        except LeaseLost:
            log.warning("the lease was taken away", extra=self._facts)
            self.lost.set()
        except Exception:
            log.exception("cannot renew the lease, will try again", extra=self._facts)
