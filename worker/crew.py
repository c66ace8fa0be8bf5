"""The crew of a job in the ledger: its owner lays out parts of the work, and whoever has time takes some.

A part is a hint and the store is the truth. A part whose worker went silent is taken over when its lease runs out; one
that is lost with the server's memory is found missing in the store, and done by the owner.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property

from ascribe.ledger.base import Claim, LeaseLost, Ledger, Part
from ascribe.ledger.heartbeat import Heartbeat
from ascribe.settings import WorkerSettings
from worker.environment import environment_key
from worker.staging import Insist
from worker.ticks import tick

LOOK_AGAIN_SECONDS = 5.0
"""How often an owner that is alone looks for others, between two parts."""
WAIT_SECONDS = 0.1

log = logging.getLogger(__name__)


class LedgerCrew:
    """See :class:`worker.sharing.Crew`. Everything here raises LeaseLost once the claim is not the present one."""

    def __init__(self, ledger: Ledger, claim: Claim, settings: WorkerSettings) -> None:
        self._ledger, self._claim, self._settings = ledger, claim, settings
        self._insist = Insist(settings.lease_seconds)

    @property
    def me(self) -> str:
        return self._claim.worker

    def has_company(self) -> bool:
        workers = self._insist(self._ledger.workers)
        mine = (self._claim.spec.queue, self._environment)
        return sum((worker.queue, worker.environment) == mine for worker in workers) > 1

    def do(self, parts: Sequence[str], work: Callable[[str], None], done: Callable[[str, str], None]) -> None:
        left, look_at = list(parts), -math.inf
        while left:
            if len(left) > 1 and time.monotonic() >= look_at:
                if self.has_company():
                    self._share(left, work, done)
                    return
                look_at = time.monotonic() + LOOK_AGAIN_SECONDS
            part = left.pop(0)
            work(part)
            done(part, self.me)

    def _share(self, parts: Sequence[str], work: Callable[[str], None], done: Callable[[str, str], None]) -> None:
        ledger, claim = self._ledger, self._claim
        self._insist(lambda: ledger.offer(claim, self._environment, parts))
        log.info("parts offered", extra={"parts": len(parts)})
        heard = 0
        while True:
            part = self._insist(lambda: ledger.take(claim.job_id, self.me, self._environment, owner=claim))
            if part is not None:
                self._work(part, work)
            standing = self._insist(lambda: ledger.standing(claim))  # before the news: what it counts is among them
            heard += self._hear(heard, done)
            if not (standing.open or standing.taken):
                return
            if part is None:
                tick()  # others are at work: a cancel or a lost lease is still noticed
                time.sleep(WAIT_SECONDS)

    def _hear(self, after: int, done: Callable[[str, str], None]) -> int:
        """How many parts were finished beyond the first ``after``."""
        news = self._insist(lambda: self._ledger.finished_parts(self._claim, after))
        for name, worker in news:
            done(name, worker)
        return len(news)

    def _work(self, part: Part, work: Callable[[str], None]) -> None:
        """Whether this process moves is seen to by the job's own heartbeat."""
        settings = self._settings
        with Heartbeat(
            lambda: self._ledger.keep(part),
            {"part": part.name},
            lease_seconds=settings.lease_seconds,
            every_seconds=settings.heartbeat_seconds,
            stall_seconds=math.inf,
            on_hung=lambda: None,
        ):
            work(part.name)
        with suppress(LeaseLost):  # somebody else has it now, or the job is lost: which is told when the next is taken
            self._insist(lambda: self._ledger.finish(part))

    @cached_property
    def _environment(self) -> str:
        return environment_key(self._settings)
