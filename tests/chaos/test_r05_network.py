"""R5: the server stands still, and the network before it slows, cuts, swallows and forgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.chaos.bench import ChaosBench
from tests.chaos.load import UNAVAILABLE, WORKING_SECONDS, Load, await_all_working, kind
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.faults.freezing import frozen
from tests.support.faults.proxy import FaultyProxy
from tests.support.processes import Service
from tests.support.tiny import make_checkpoint

ANSWER_SECONDS = 10.0
"""In which the API answers whatever the network does: it waits 1 s for Redis, and the machine may be busy."""
LATENCY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Sizes:
    freezes: tuple[float, ...]
    """Seconds of each time the server stands still."""
    cuts: int
    """Of each kind, half a second apart."""
    seconds: float
    """Of each fault that lasts."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    lasts: AbstractContextManager[None]
    silent: bool
    """Redis cannot be heard while it lasts: the API must say so."""


def run(folder: Path, sizes: Sizes) -> Outcome:
    proxy = FaultyProxy()
    make_checkpoint(folder / "data")
    recoveries: dict[str, float] = {}
    broken: list[str] = []
    with ChaosBench(folder, workers=2, front=proxy.before) as bench, bench.api() as service:
        with Load(bench, [str(service.client.base_url)], noop_spec(sleep_ms=20)) as load:
            await_all_working(bench)
            for fault in faults(bench, proxy, sizes):
                with fault.lasts:
                    if fault.silent:
                        broken += look(service, fault.name)
                recoveries[f"all at work s after {fault.name}"] = round(await_all_working(bench), 1)
        bench.checker.wait(WORKING_SECONDS)
        outcome = bench.checker.outcome()
    facts = {"refused with 503 problem+json": load.refusals[UNAVAILABLE]} | recoveries
    return outcome.beside(Outcome(facts, (*broken, *load.wrong(UNAVAILABLE))))


def faults(bench: ChaosBench, proxy: FaultyProxy, sizes: Sizes) -> Iterator[Fault]:
    for seconds in sizes.freezes:
        yield Fault(f"{seconds:g} s of SIGSTOP", for_seconds(seconds, frozen(bench.server_process.pid)), silent=True)
    for name, cut in (("resets", proxy.reset), ("half-open connections", proxy.half_open)):
        yield Fault(f"{sizes.cuts} {name}", repeated(sizes.cuts, cut), silent=False)
    for name, begin in (("black hole", proxy.black_hole), ("lost replies", proxy.lose_replies)):
        yield Fault(f"{sizes.seconds:g} s of {name}", until_healed(sizes.seconds, proxy, begin), silent=True)
    slow = until_healed(sizes.seconds, proxy, lambda: setattr(proxy, "latency_seconds", LATENCY_SECONDS))
    yield Fault(f"{sizes.seconds:g} s of {LATENCY_SECONDS * 1000:g} ms", slow, silent=False)


@contextmanager
def for_seconds(seconds: float, fault: AbstractContextManager[None]) -> Iterator[None]:
    """At least so long, and as long as the block takes."""
    with fault:
        ends = time.monotonic() + seconds
        yield
        time.sleep(max(0.0, ends - time.monotonic()))


@contextmanager
def until_healed(seconds: float, proxy: FaultyProxy, begin: Callable[[], None]) -> Iterator[None]:
    begin()
    ends = time.monotonic() + seconds
    yield
    time.sleep(max(0.0, ends - time.monotonic()))
    proxy.heal()


@contextmanager
def repeated(times: int, cut: Callable[[], None]) -> Iterator[None]:
    for _ in range(times):
        cut()
        time.sleep(0.5)
    yield


def look(service: Service, fault: str) -> Iterator[str]:
    """What is wrong with the API's answers while it cannot hear Redis."""
    for path in ("/v1/jobs", "/readyz"):
        began = time.monotonic()
        try:
            answer = service.client.get(path, timeout=ANSWER_SECONDS)
        except httpx.TimeoutException:
            yield f"{fault}: GET {path} was not answered in {ANSWER_SECONDS:g} s"
            continue
        if kind(answer) != UNAVAILABLE:
            yield f"{fault}: GET {path} answered {kind(answer)} after {time.monotonic() - began:.1f} s"


SCENARIO = Scenario(
    name="R5",
    title="Redis stopped for 5, 30 and 120 s; connections reset, half-open, swallowed, without replies, 200 ms slow",
    must="no deadlock, no double commit, 0 lost; 503 problem+json in time",
    run=run,
    short=Sizes(freezes=(3,), cuts=2, seconds=3),
    long=Sizes(freezes=(5, 30, 120), cuts=20, seconds=20),
)


def test_no_trouble_of_the_network_loses_or_doubles_a_job(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["accepted"] == outcome.facts["succeeded"]
    assert outcome.facts["refused with 503 problem+json"], "nobody met the trouble: nothing was tested"
