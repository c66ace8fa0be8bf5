"""The thread that rings: at once after a nudge, again after a failure, never lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ascribe.errors import QueueUnavailable
from ascribe.ledger.base import Call, Policy, Reconciled, Ring, WorkerInfo
from ascribe.ledger.memory import MemoryLedger
from ascribe.ledger.upkeep import Upkeep
from tests.support.ledger import claim, create


class Bell:
    """Writes down what it rang; refuses as long as ``broken`` is set."""

    def __init__(self) -> None:
        self.rung: list[Ring] = []
        self.called: list[Call] = []
        self.tried = 0
        self.broken = threading.Event()

    def ring(self, ring: Ring) -> None:
        self.tried += 1
        if self.broken.is_set():
            raise ConnectionError("redis://:password@host refused")
        self.rung.append(ring)

    def call(self, call: Call) -> None:
        self.tried += 1
        if self.broken.is_set():
            raise ConnectionError("redis://:password@host refused")
        self.called.append(call)


class FlakyLedger(MemoryLedger):
    down = False

    def reconcile(self) -> Reconciled:
        if self.down:
            raise QueueUnavailable("Redis cannot be reached")
        return super().reconcile()


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def ledger() -> FlakyLedger:
    return FlakyLedger(Policy(lease_seconds=0.05, retry_backoff_seconds=0))


@pytest.fixture
def start(ledger: FlakyLedger, bell: Bell) -> Iterator[Callable[[float], Upkeep]]:
    started: list[Upkeep] = []

    def start(every_seconds: float) -> Upkeep:
        upkeep = Upkeep(ledger, bell, every_seconds=every_seconds)
        upkeep.start()
        started.append(upkeep)
        return upkeep

    yield start
    for upkeep in started:
        upkeep.stop()


def test_what_waits_is_rung_at_the_start(ledger: FlakyLedger, bell: Bell, start: Callable[[float], Upkeep]) -> None:
    jobs = [create(ledger) for _ in range(3)]
    start(60)
    until(lambda: bell.rung == [Ring(job_id, 1) for job_id in jobs])


def test_a_nudge_rings_now(ledger: FlakyLedger, bell: Bell, start: Callable[[float], Upkeep]) -> None:
    upkeep = start(60)
    for count in (1, 2):
        create(ledger)
        upkeep.nudge()
        until(lambda count=count: len(bell.rung) == count)  # type: ignore[misc]


def test_an_expired_lease_is_found_without_a_nudge(
    ledger: FlakyLedger, bell: Bell, start: Callable[[float], Upkeep], caplog: pytest.LogCaptureFixture
) -> None:
    job_id = create(ledger)
    claim(ledger, job_id)
    start(0.02)
    until(lambda: Ring(job_id, 2) in bell.rung)
    assert [record.__dict__["job_id"] for record in caplog.records] == [job_id]


def test_a_ring_that_failed_is_sent_later(
    ledger: FlakyLedger, bell: Bell, start: Callable[[float], Upkeep], caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [create(ledger) for _ in range(3)]
    bell.broken.set()
    start(0.02)
    until(lambda: bell.tried >= 2)
    assert bell.rung == []
    bell.broken.clear()
    until(lambda: bell.rung == [Ring(job_id, 1) for job_id in jobs])

    facts = [(record.__dict__["waiting"], record.__dict__["error"]) for record in caplog.records]
    assert set(facts) == {(3, "ConnectionError")}
    assert "password" not in str([vars(record) for record in caplog.records])


def offer(ledger: FlakyLedger) -> str:
    """A job with two parts, and a worker beside its owner to help."""
    for worker in ("w1", "w2"):
        ledger.register_worker(WorkerInfo(worker, "cpu", {}, "sdpa", 4096, 256, "cpu", "env"), ttl_seconds=60)
    owner = claim(ledger, create(ledger))
    ledger.offer(owner, "env", ["a", "b"])
    return owner.job_id


def test_helpers_are_called(bell: Bell, start: Callable[[float], Upkeep], ledger: FlakyLedger) -> None:
    job_id = offer(ledger)
    start(60)
    until(lambda: bell.called == [Call(job_id)])


def test_a_call_that_failed_is_forgotten(bell: Bell, ledger: FlakyLedger) -> None:
    offer(ledger)
    bell.broken.set()
    upkeep = Upkeep(ledger, bell, every_seconds=0.02)
    upkeep.start()
    until(lambda: bell.tried == 1)
    bell.broken.clear()
    create(ledger)
    until(lambda: len(bell.rung) == 1)
    upkeep.stop()
    assert bell.called == []


def test_the_ledger_may_be_gone_for_a_while(
    ledger: FlakyLedger, bell: Bell, start: Callable[[float], Upkeep], caplog: pytest.LogCaptureFixture
) -> None:
    ledger.down = True
    create(ledger)
    start(0.02)
    until(lambda: "cannot reach the ledger" in caplog.text)
    ledger.down = False
    until(lambda: len(bell.rung) == 1)


def test_an_unexpected_fault_is_logged_and_survived(
    ledger: FlakyLedger, bell: Bell, start: Callable[[float], Upkeep], caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(FlakyLedger):
        def reconcile(self) -> Reconciled:
            self.reconcile = super().reconcile  # type: ignore[method-assign]
            raise ZeroDivisionError

    faulty = Faulty(Policy())
    create(faulty)
    upkeep = Upkeep(faulty, bell, every_seconds=0.02)
    with caplog.at_level(logging.ERROR):
        upkeep.start()
        until(lambda: len(bell.rung) == 1)
        upkeep.stop()
    assert "ZeroDivisionError" in caplog.text


def test_stopping_ends_the_thread_at_once_even_if_never_started(ledger: FlakyLedger, bell: Bell) -> None:
    before = threading.active_count()
    upkeep = Upkeep(ledger, bell, every_seconds=60)
    upkeep.stop()
    running = Upkeep(ledger, bell, every_seconds=60)
    running.start()
    begun = time.monotonic()
    running.stop()
    assert time.monotonic() - begun < 1
    assert threading.active_count() == before
