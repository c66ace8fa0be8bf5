"""The lease is kept while the work moves, and given up when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from ascribe.errors import QueueUnavailable
from ascribe.job import JobState
from ascribe.ledger.base import Claim, Policy
from ascribe.ledger.heartbeat import Heartbeat
from ascribe.ledger.memory import MemoryLedger
from tests.support.ledger import running

LEASE_SECONDS = 0.3


class FlakyLedger(MemoryLedger):
    renewed = 0
    fault: Exception | None = None

    def renew(self, claim: Claim) -> bool:
        if self.fault is not None:
            raise self.fault
        self.renewed += 1
        return super().renew(claim)


@pytest.fixture
def ledger() -> FlakyLedger:
    return FlakyLedger(Policy(lease_seconds=LEASE_SECONDS))


def heartbeat(
    ledger: FlakyLedger, claim: Claim, stall_seconds: float = 60, on_hung: Callable[[], None] = lambda: None
) -> Heartbeat:
    return Heartbeat(
        lambda: ledger.renew(claim),
        {"job_id": claim.job_id},
        lease_seconds=LEASE_SECONDS,
        every_seconds=0.03,
        stall_seconds=stall_seconds,
        on_hung=on_hung,
    )


def test_work_that_ends_once_its_lease_is_lost_is_not_hung(ledger: FlakyLedger) -> None:
    hung = threading.Event()
    with heartbeat(ledger, running(ledger), stall_seconds=0.05, on_hung=hung.set) as beat:
        assert beat.lost.wait(5)
    assert not hung.wait(LEASE_SECONDS * 2)


def test_work_that_does_not_look_at_its_lost_lease_is_hung(ledger: FlakyLedger) -> None:
    hung = threading.Event()
    with heartbeat(ledger, running(ledger), stall_seconds=0.05, on_hung=hung.set) as beat:
        assert beat.lost.wait(5)
        assert hung.wait(5)


def test_a_job_that_works_longer_than_its_lease_keeps_it(ledger: FlakyLedger) -> None:
    owner = running(ledger)
    with heartbeat(ledger, owner) as beat:
        time.sleep(LEASE_SECONDS * 2)
        assert ledger.reconcile().requeued == ()
        assert not beat.lost.is_set()
        assert not beat.cancel_requested.is_set()

    renewed = ledger.renewed
    time.sleep(0.1)
    assert ledger.renewed == renewed


def test_a_request_to_cancel_is_seen(ledger: FlakyLedger) -> None:
    owner = running(ledger)
    with heartbeat(ledger, owner) as beat:
        ledger.request_cancel(owner.job_id)
        assert beat.cancel_requested.wait(5)


def test_a_lease_taken_away_is_seen(ledger: FlakyLedger) -> None:
    owner = running(ledger)
    time.sleep(LEASE_SECONDS)
    ledger.reconcile()
    with heartbeat(ledger, owner) as beat:
        assert beat.lost.wait(5)


def test_work_that_does_not_move_loses_its_lease(ledger: FlakyLedger) -> None:
    owner = running(ledger)
    with heartbeat(ledger, owner, stall_seconds=0.1) as beat:
        assert beat.lost.wait(5)
    assert ledger.reconcile().requeued == (owner.job_id,)


def test_work_that_moves_keeps_it(ledger: FlakyLedger) -> None:
    owner = running(ledger)
    with heartbeat(ledger, owner, stall_seconds=0.2) as beat:
        for _ in range(30):
            time.sleep(0.02)
            beat.moved()
        assert not beat.lost.is_set()
    assert ledger.get(owner.job_id).status == JobState.RUNNING


@pytest.mark.parametrize("fault", [QueueUnavailable("Redis cannot be reached"), ZeroDivisionError()])
def test_a_short_outage_is_sat_out(ledger: FlakyLedger, fault: Exception) -> None:
    owner = running(ledger)
    with heartbeat(ledger, owner) as beat:
        ledger.fault = fault
        time.sleep(0.1)
        ledger.fault = None
        renewed = ledger.renewed
        time.sleep(LEASE_SECONDS)
        assert ledger.renewed > renewed
        assert not beat.lost.is_set()


def test_an_outage_longer_than_the_lease_is_a_lost_lease(ledger: FlakyLedger) -> None:
    owner = running(ledger)
    ledger.fault = QueueUnavailable("Redis cannot be reached")
    begun = time.monotonic()
    with heartbeat(ledger, owner) as beat:
        assert beat.lost.wait(5)
    assert time.monotonic() - begun >= LEASE_SECONDS


def test_a_part_is_kept_by_the_same_thread(ledger: FlakyLedger) -> None:
    owner = running(ledger)
    ledger.offer(owner, "env", ["a"])
    part = ledger.take(owner.job_id, "w2", "env")
    assert part is not None
    with (
        heartbeat(ledger, owner),
        Heartbeat(
            lambda: ledger.keep(part),
            {"part": part.name},
            lease_seconds=LEASE_SECONDS,
            every_seconds=0.03,
            stall_seconds=60,
            on_hung=lambda: None,
        ) as beat,
    ):
        time.sleep(LEASE_SECONDS * 2)
        assert ledger.take(owner.job_id, "w3", "env") is None
        assert not beat.cancel_requested.is_set()
        ledger.request_cancel(owner.job_id)
        assert beat.lost.wait(5)
