"""R4: the server is killed and started again while jobs come in through the API."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.bench import ChaosBench
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.tiny import make_checkpoint

PATIENCE_SECONDS = 120.0
BOUND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sizes:
    jobs: int
    server_kills: int
    clients: int = 2
    sleep_ms: int = 20


@dataclass
class Load:
    """Clients that submit under a key of its own for each job, and send again what was not answered with a yes."""

    bench: ChaosBench
    api: httpx.Client
    sizes: Sizes
    refusals: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def submit_all(self, pool: ThreadPoolExecutor) -> Iterator[None]:
        return pool.map(lambda _: self._submit(), range(self.sizes.jobs))

    def _submit(self) -> None:
        spec = noop_spec(sleep_ms=self.sizes.sleep_ms).model_dump(mode="json")
        key = {"Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            answer = self.api.post("/v1/jobs", json=spec, headers=key)
            if answer.status_code == 202:
                self.bench.checker.accept(answer.json()["id"])
                return
            self._refused(answer)
            time.sleep(0.1)
        raise TimeoutError("no job was taken for two minutes")

    def look(self) -> None:
        """Of a server that is down only one answer is right."""
        self._refused(self.api.get(f"/v1/jobs/{self.bench.checker.accepted[0]}"))

    def _refused(self, answer: httpx.Response) -> None:
        kind = f"{answer.status_code} {answer.headers['content-type']}"
        with self.lock:
            self.refusals[kind] += 1


def run(folder: Path, sizes: Sizes) -> Outcome:
    make_checkpoint(folder / "data")
    with (
        ChaosBench(folder, workers=2) as bench,
        bench.api() as service,
        ThreadPoolExecutor(sizes.clients) as pool,
    ):
        load = Load(bench, service.client, sizes)
        submitted = load.submit_all(pool)
        for number in range(sizes.server_kills):
            _await_accepted(bench, round(sizes.jobs * 0.95 * (number + bench.random.random()) / sizes.server_kills))
            bench.kill_server()
            load.look()
            time.sleep(bench.random.uniform(0.2, 1))
            bench.start_server()
        for _ in submitted:
            pass  # raises what a client raised
        seconds = bench.checker.wait(BOUND_SECONDS)
        outcome = bench.checker.outcome()
    wrong = sorted(set(load.refusals) - {"503 application/problem+json"})
    facts = {
        "server kills": sizes.server_kills,
        "refused with 503 problem+json": load.refusals["503 application/problem+json"],
        "ended s after the last kill": round(seconds, 1),
    }
    return outcome.beside(Outcome(facts, tuple(f"answered {kind} while the server was down" for kind in wrong)))


def _await_accepted(bench: ChaosBench, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(bench.checker.accepted) <= count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(bench.checker.accepted)} jobs were accepted of {count} to wait for")
        time.sleep(0.01)


SCENARIO = Scenario(
    name="R4",
    title="Redis SIGKILLed and started again 20 times while jobs come in through the API",
    must="0 accepted jobs lost with `appendfsync always`; 503 problem+json meanwhile",
    run=run,
    short=Sizes(jobs=60, server_kills=2),
    long=Sizes(jobs=3000, server_kills=20),
)


def test_a_killed_server_loses_no_accepted_job(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == SCENARIO.short.jobs
    assert outcome.facts["refused with 503 problem+json"], "nobody met the server down: nothing was tested"
