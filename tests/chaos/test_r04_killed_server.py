"""R4: the server is killed and started again while jobs come in through the API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.bench import ChaosBench
from tests.chaos.load import PATIENCE_SECONDS, UNAVAILABLE, Load, kind
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.tiny import make_checkpoint

BOUND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sizes:
    server_kills: int
    jobs_between: int
    clients: int = 3


def run(folder: Path, sizes: Sizes) -> Outcome:
    make_checkpoint(folder / "data")
    with ChaosBench(folder, workers=2) as bench, bench.api() as service:
        with Load(bench, [str(service.client.base_url)], noop_spec(sleep_ms=20), sizes.clients, 0.02) as load:
            for number in range(sizes.server_kills):
                _await_accepted(bench, number * sizes.jobs_between + bench.random.randint(1, sizes.jobs_between))
                bench.kill_server()
                # One that the clients need not meet, so that each kill is looked at.
                load.refusals[kind(service.client.get(f"/v1/jobs/{bench.checker.accepted[0]}"))] += 1
                time.sleep(bench.random.uniform(0.2, 1))
                bench.start_server()
            _await_accepted(bench, sizes.server_kills * sizes.jobs_between)
        seconds = bench.checker.wait(BOUND_SECONDS)
        outcome, failed = bench.checker.outcome(), [*_failed(bench)]
    facts = {
        "server kills": sizes.server_kills,
        "refused with 503 problem+json": load.refusals[UNAVAILABLE],
        "ended s after the last kill": round(seconds, 1),
    }
    return outcome.beside(Outcome(facts, (*load.wrong(UNAVAILABLE), *failed)))


def _failed(bench: ChaosBench) -> Iterator[str]:
    """A server that went away is no fault of the job."""
    for job_id in bench.checker.accepted:
        job = bench.ledger.get(job_id)
        if job.error is not None:
            yield f"{job_id} failed as {job.error.code}: {job.error.detail} ({job.attempts})"


def _await_accepted(bench: ChaosBench, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(bench.checker.accepted) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(bench.checker.accepted)} jobs were accepted of {count} to wait for")
        time.sleep(0.01)


SCENARIO = Scenario(
    name="R4",
    title="Redis SIGKILLed and started again 20 times while jobs come in through the API",
    must="0 accepted jobs lost with `appendfsync always`; 503 problem+json meanwhile",
    run=run,
    short=Sizes(server_kills=2, jobs_between=20),
    long=Sizes(server_kills=20, jobs_between=100),
)


def test_a_killed_server_loses_no_accepted_job(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == outcome.facts["accepted"]
    assert int(outcome.facts["refused with 503 problem+json"]) >= SCENARIO.short.server_kills
