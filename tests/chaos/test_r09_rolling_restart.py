"""R9: workers and APIs are replaced one after the other under load, each told to stop by SIGTERM."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ascribe.job import JobState
from ascribe.ledger.base import JobFilter
from tests.chaos.bench import ChaosBench, Worker
from tests.chaos.load import Load, await_all_working, kind
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.tiny import make_checkpoint
from tests.support.waiting import await_that

WORK_MS = 500
HELD = 2
HELD_SECONDS = 30
HELD_WORK_MS = 1500
STOP_SECONDS = 30.0
TURN_AWAY_SECONDS = 1.0
"""Between taking an API off the list of those that are asked and telling it to stop, as a load balancer does."""


@dataclass(frozen=True, slots=True)
class Sizes:
    rounds: int
    """In each, every worker and every API is replaced."""


@dataclass
class Rolling:
    """What is to be replaced, and what was wrong about how it went."""

    bench: ChaosBench
    urls: list[str]
    apis: Sequence[ExitStack]
    """One for each of ``urls``: closing it tells the API to stop, and waits until it has."""
    pool: ThreadPoolExecutor
    held: int = 0
    in_flight: int = 0
    broken: list[str] = field(default_factory=list)

    def replace_worker(self, worker: Worker, *, whole_group: bool) -> None:
        """A service manager may tell the parent alone, or every process of the group."""
        self._await_busy(worker)
        pid = worker.process.pid
        os.killpg(pid, signal.SIGTERM) if whole_group else os.kill(pid, signal.SIGTERM)
        code = worker.process.wait(STOP_SECONDS)
        if code != 0:
            self.broken.append(f"worker {worker.number} ended with code {code} when it was told to stop")
        self.bench.restart_worker(worker)
        await_all_working(self.bench)

    def replace_api(self, index: int) -> None:
        old, old_url = self.apis[index].pop_all(), self.urls[index]
        self.urls[index] = str(self.apis[index].enter_context(self.bench.api()).client.base_url)
        time.sleep(TURN_AWAY_SECONDS)
        waiting = self._hold(old_url)
        self.in_flight += sum(not each.done() for each in waiting)
        old.close()
        for each in waiting:
            self._take(each)

    def _await_busy(self, worker: Worker) -> None:
        def busy() -> bool:
            running = self.bench.ledger.list(JobFilter(status=JobState.RUNNING)).jobs
            return any(job.attempts[-1].worker in worker.claims_as for job in running)

        await_that(busy, f"worker {worker.number} has a job")

    def _hold(self, url: str) -> list[Future[httpx.Response]]:
        """Requests that the API has taken and will not answer soon: their jobs are there, and take their time."""
        self.held += 1
        labels = {"sleep_ms": str(HELD_WORK_MS), "held": str(self.held)}
        body = noop_spec().model_copy(update={"labels": labels}).model_dump(mode="json")
        headers = {"Prefer": f"wait={HELD_SECONDS}"}
        waiting = [
            self.pool.submit(httpx.post, f"{url}/v1/jobs", json=body, headers=headers, timeout=2 * HELD_SECONDS)
            for _ in range(HELD)
        ]
        await_that(lambda: len(self.bench.ledger.list(JobFilter(labels=labels)).jobs) == HELD, "all are held")
        return waiting

    def _take(self, waiting: Future[httpx.Response]) -> None:
        try:
            answer = waiting.result(STOP_SECONDS)
        except httpx.TransportError as error:
            self.broken.append(f"a request in flight ended with {type(error).__name__}")
            return
        if answer.is_success:
            self.bench.checker.accept(answer.json()["id"])
        else:
            self.broken.append(f"a request in flight was answered {kind(answer)}")


def run(folder: Path, sizes: Sizes) -> Outcome:
    make_checkpoint(folder / "data")
    with (
        ChaosBench(folder, workers=2) as bench,
        ThreadPoolExecutor(HELD) as pool,
        ExitStack() as stack,
    ):
        apis = [stack.enter_context(ExitStack()) for _ in range(2)]
        urls = [str(api.enter_context(bench.api()).client.base_url) for api in apis]
        rolling = Rolling(bench, urls, apis, pool)
        with Load(bench, urls, noop_spec(sleep_ms=WORK_MS), every_seconds=0.7) as load:
            for number in range(sizes.rounds):
                for worker in bench.workers:
                    rolling.replace_worker(worker, whole_group=(number + worker.number) % 2 == 0)
                for index in range(len(apis)):
                    rolling.replace_api(index)
        bench.checker.wait(120)
        outcome = bench.checker.outcome()
        ended = Counter(attempt_outcomes(bench))
    facts = {
        "workers replaced": sizes.rounds * len(bench.workers),
        "APIs replaced": sizes.rounds * len(apis),
        "handed back": ended["handed_back"],
        "leases lost": ended["lost"],
        "requests in flight when an API was told to stop": rolling.in_flight,
    }
    return outcome.beside(Outcome(facts, (*rolling.broken, *load.wrong(), *wrong(ended))))


def attempt_outcomes(bench: ChaosBench) -> Iterator[str]:
    for job_id in bench.checker.accepted:
        yield from (str(attempt.outcome) for attempt in bench.ledger.get(job_id).attempts)


def wrong(ended: Mapping[str, int]) -> Iterator[str]:
    for outcome in ("lost", "failed"):
        if ended[outcome]:
            yield f"{ended[outcome]} attempts {outcome}: their workers did not hand them back"


SCENARIO = Scenario(
    name="R9",
    title="workers and APIs replaced one after the other under load, each stopped by SIGTERM, 10 rounds",
    must="0 failed jobs, in-flight HTTP drained; no lease lost",
    run=run,
    short=Sizes(rounds=1),
    long=Sizes(rounds=10),
)


def test_a_rolling_restart_fails_no_job_and_cuts_off_no_caller(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == outcome.facts["accepted"]
    assert outcome.facts["handed back"], "no worker was at work when it was told to stop"
    assert outcome.facts["requests in flight when an API was told to stop"]
