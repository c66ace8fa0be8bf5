"""Progress of one attempt: phases, fractions, ETA, seconds, and the place where a cancel is noticed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ascribe.errors import LimitExceeded
from ascribe.job import Phase, Progress
from worker.ticks import listening

SEND_EVERY_SECONDS = 0.25


class Cancelled(Exception):
    """The caller asked for the job to end; raised at the next batch."""


class Draining(Exception):
    """This worker is to stop: the job is for another one to go on with. Raised at the next batch."""


class Reporter:
    """Tells ``send`` where the work is, at each batch but not more than four times a second.

    ``send`` answers True when the job is to be cancelled. ``seconds`` holds the time spent in each phase.
    ``max_seconds`` counts from here; as a cancel is, running out of it is noticed at the next batch.
    """

    def __init__(self, send: Callable[[Progress], bool], *, max_seconds: float = math.inf) -> None:
        self._send = send
        self._max_seconds = max_seconds
        self.seconds: dict[str, float] = {}
        self._phase = Phase.LOADING
        self._total = self._done = self._skipped = 0
        self._started = self._phase_started = self._last_sent = time.monotonic()

    @contextmanager
    def phase(self, phase: Phase, total: int = 1) -> Iterator[None]:
        """The work inside counts to ``total``; entering and leaving are always told, and every tick is a chance to.

        A phase inside another interrupts it: its seconds are its own, and the outer one goes on where it was.
        """
        outer = (self._phase, self._total, self._done, self._skipped, self._phase_started)
        self._phase, self._total, self._done, self._skipped = phase, total, 0, 0
        started = self._phase_started = time.monotonic()
        self._tell()
        with listening(self._tell_in_time):
            yield
        now = time.monotonic()
        self.seconds[phase.value] = self.seconds.get(phase.value, 0.0) + now - self._phase_started
        self._done = total
        self._tell()
        self._phase, self._total, self._done, self._skipped, outer_started = outer
        self._phase_started = outer_started + now - started

    def advance(self, count: int = 1, *, found: bool = False) -> None:
        """``count`` more are done. ``found`` ones cost nothing (a cache had them) and stay out of the ETA.

        Raises:
            Cancelled: the caller asked for it. Draining: this worker is told to stop.
            LimitExceeded: the job has run for ``max_seconds``.
        """
        self._done += count
        if found:
            self._skipped += count
        self._tell_in_time()

    def _tell_in_time(self) -> None:
        if time.monotonic() - self._last_sent >= SEND_EVERY_SECONDS:
            self._tell()

    def _tell(self) -> None:
        now = self._last_sent = time.monotonic()
        if now - self._started > self._max_seconds:
            raise LimitExceeded(
                f"the job ran for {self._max_seconds:g} seconds, the limit max_job_seconds: use fewer rows, or submit "
                "it again, the gradients that were finished are cached"
            )
        worked = self._done - self._skipped
        remaining = self._total - self._done
        eta = (now - self._phase_started) * remaining / worked if worked else None
        progress = Progress(
            phase=self._phase,
            done=self._done,
            total=self._total,
            fraction=min(1.0, self._done / self._total) if self._total else 1.0,
            eta_seconds=None if eta is None else round(eta, 1),
        )
        if self._send(progress):
            raise Cancelled
