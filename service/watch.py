"""Waits for jobs to change, for any number of clients, with one look at the ledger for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context

from starlette.concurrency import run_in_threadpool

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Ledger, Pulse

log = logging.getLogger(__name__)

Wanted = Callable[[Pulse | None], bool]
"""Whether a job's pulse (None: it is gone) is what a client waits for."""


class Watch:
    """Asks for the pulses of all followed jobs together, every ``every_seconds`` while there is anyone to tell.

    A client that waits holds no thread. ``most_followers`` bounds how many may wait at once; a few more get in when
    they come together.
    """

    def __init__(self, ledger: Ledger, *, every_seconds: float, most_followers: int) -> None:
        self._ledger = ledger
        self._every_seconds = every_seconds
        self._most_followers = most_followers
        self._followers = 0
        self._waiting: dict[str, list[tuple[Wanted, asyncio.Future[None]]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self.stopping = False

    @property
    def full(self) -> bool:
        return self.stopping or self._followers >= self._most_followers

    @contextmanager
    def following(self) -> Iterator[None]:
        """For as long as a client is held."""
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    async def until(self, job_id: str, wanted: Wanted, seconds: float) -> bool:
        """Whether the job came to what is ``wanted`` within ``seconds``; False at once when the service stops."""
        if self.stopping:
            return False
        waiter = wanted, asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(waiter)
        if self._looking is None or self._looking.done():
            # In a context of its own: it serves many requests, and belongs to none.
            self._looking = asyncio.get_running_loop().create_task(self._look(), context=Context())
        try:
            async with asyncio.timeout(seconds):
                await waiter[1]
            return not self.stopping
        except TimeoutError:
            return False
        finally:
            self._waiting[job_id].remove(waiter)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def stop(self) -> None:
        """Let everybody go, so that the service can end. To be called in the event loop."""
        self.stopping = True
        for waiters in self._waiting.values():
            for _, future in waiters:
                _release(future)

    async def _look(self) -> None:
        while self._waiting and not self.stopping:
            job_ids = list(self._waiting)
            try:
                pulses = await run_in_threadpool(self._ledger.pulses, job_ids)
                self._tell(dict(zip(job_ids, pulses, strict=True)))
            except QueueUnavailable as error:
                # Whoever waits goes on waiting: each has a patience of its own.
                log.warning("followed jobs cannot be looked at, will try again", extra={"detail": error.detail})
            except Exception:
                log.exception("followed jobs cannot be looked at, will try again")
            await asyncio.sleep(self._every_seconds)

    def _tell(self, pulses: dict[str, Pulse | None]) -> None:
        for job_id, pulse in pulses.items():
            for wanted, future in self._waiting.get(job_id, ()):
                if wanted(pulse):
                    _release(future)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
