"""Waiting for jobs: one look at the ledger for all who wait, none when nobody does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from ascribe.errors import QueueUnavailable
from ascribe.job import JobState
from ascribe.ledger.base import Policy, Pulse
from ascribe.ledger.memory import MemoryLedger
from service.events.operations import stream
from service.watch import Watch
from tests.support.ledger import ERROR, claim, create

EVERY = 0.02


class CountingLedger(MemoryLedger):
    """Counts the looks at pulses; ``down`` makes them fail."""

    def __init__(self) -> None:
        super().__init__(Policy())
        self.looks: list[list[str]] = []
        self.down = False

    def pulses(self, job_ids: Sequence[str]) -> Sequence[Pulse | None]:
        self.looks.append(list(job_ids))
        if self.down:
            raise QueueUnavailable("Redis does not answer.")
        return super().pulses(job_ids)


def ended(pulse: Pulse | None) -> bool:
    return pulse is None or pulse.status.terminal


def make() -> tuple[CountingLedger, Watch]:
    ledger = CountingLedger()
    return ledger, Watch(ledger, every_seconds=EVERY, most_followers=100)


def test_all_who_wait_share_one_look_and_nobody_waits_for_nothing() -> None:
    ledger, watch = make()
    jobs = [create(ledger) for _ in range(3)]

    async def wait() -> list[bool]:
        waiting = [asyncio.create_task(watch.until(jobs[i % 3], ended, 5)) for i in range(300)]
        await asyncio.sleep(10 * EVERY)
        for job_id in jobs:
            ledger.request_cancel(job_id)
        told = await asyncio.gather(*waiting)
        looks = len(ledger.looks)
        await asyncio.sleep(10 * EVERY)
        assert len(ledger.looks) <= looks + 1, "it looks on though nobody waits"
        return told

    assert asyncio.run(wait()) == [True] * 300
    assert all(sorted(look) == sorted(jobs) for look in ledger.looks)
    assert len(ledger.looks) < 30


def test_a_wait_ends_in_time_and_one_that_follows_is_looked_after() -> None:
    ledger, watch = make()
    job_id = create(ledger)

    async def wait() -> tuple[bool, bool]:
        first = await watch.until(job_id, ended, 3 * EVERY)
        ledger.request_cancel(job_id)
        return first, await watch.until(job_id, ended, 5)

    assert asyncio.run(wait()) == (False, True)


def test_a_ledger_that_is_gone_for_a_while_ends_no_wait() -> None:
    ledger, watch = make()
    job_id = create(ledger)
    ledger.down = True

    async def wait() -> bool:
        waiting = asyncio.create_task(watch.until(job_id, ended, 5))
        await asyncio.sleep(5 * EVERY)
        ledger.request_cancel(job_id)
        assert not waiting.done()
        ledger.down = False
        return await waiting

    assert asyncio.run(wait())
    assert len(ledger.looks) > 2


def test_stopping_lets_everybody_go() -> None:
    ledger, watch = make()
    job_id = create(ledger)

    async def wait() -> list[bool]:
        waiting = [asyncio.create_task(watch.until(job_id, ended, 60)) for _ in range(3)]
        await asyncio.sleep(2 * EVERY)
        watch.stop()
        return [*await asyncio.gather(*waiting), await watch.until(job_id, ended, 60)]

    began = time.monotonic()
    assert asyncio.run(wait()) == [False] * 4
    assert time.monotonic() - began < 5
    assert watch.full


def test_a_stream_is_kept_alive_between_events() -> None:
    ledger, watch = make()
    job_id = create(ledger)

    async def read() -> list[bytes]:
        pieces = []
        async for piece in stream(job_id, 0, ledger, watch, heartbeat_seconds=3 * EVERY):
            pieces.append(piece)
            if piece == b": ping\n\n" and pieces.count(piece) == 2:
                ledger.fail(claim(ledger, job_id), ERROR)
        return pieces

    first, *pings, started, last = asyncio.run(read())
    assert first.startswith(b"event: created\n")
    assert set(pings) == {b": ping\n\n"}
    assert started.startswith(b"event: started\n")
    assert last.startswith(b"event: failed\n")
    assert ledger.get(job_id).status == JobState.FAILED


def test_a_stream_that_is_left_gives_its_place_back() -> None:
    ledger = CountingLedger()
    watch = Watch(ledger, every_seconds=EVERY, most_followers=1)
    job_id = create(ledger)

    async def leave() -> None:
        events = stream(job_id, 0, ledger, watch)
        await anext(events)
        assert watch.full
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(3 * EVERY)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert not watch.full

    asyncio.run(leave())
