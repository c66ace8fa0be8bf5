"""R8: Redis reaches its maxmemory with jobs running, waiting and coming in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ascribe.errors import QueueUnavailable
from ascribe.job import JobState
from tests.chaos.bench import ChaosBench
from tests.chaos.load import UNAVAILABLE, kind
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.faults.full_server import memory_full
from tests.support.processes import Service
from tests.support.tiny import make_checkpoint
from tests.support.waiting import await_that

WORKERS = 2
WORK_MS = 2000
RESULT_BYTES = 1 << 20
"""Scores that a running job has still to put beside its record when memory is full."""


@dataclass(frozen=True, slots=True)
class Sizes:
    rounds: int
    seconds: float
    """That memory stays full after the running jobs have ended."""


def run(folder: Path, sizes: Sizes) -> Outcome:
    make_checkpoint(folder / "data")
    broken: list[str] = []
    finished = 0
    with ChaosBench(folder, workers=WORKERS) as bench, bench.api() as service:
        for _ in range(sizes.rounds):
            for _ in range(2 * WORKERS):
                bench.submit(noop_spec(sleep_ms=WORK_MS, result_bytes=RESULT_BYTES))
            await_that(lambda: len(running(bench)) == WORKERS, "every worker has a job")
            held = running(bench)
            with memory_full(bench.server):
                broken += refusals(service)
                await_that(lambda ids=held: not ids & running(bench), "running jobs ended")  # type: ignore[misc]
                finished += sum(bench.ledger.get(job_id).status is JobState.SUCCEEDED for job_id in held)
                broken += refusals(service)
                time.sleep(sizes.seconds)
            bench.checker.wait(60)
            broken += takes_work_again(bench, service)
        bench.checker.wait(60)
        outcome = bench.checker.outcome()
    facts = {"times full": sizes.rounds, "finished while full": finished}
    return outcome.beside(Outcome(facts, tuple(broken)))


def running(bench: ChaosBench) -> set[str]:
    jobs = (bench.ledger.get(job_id) for job_id in bench.checker.accepted[-2 * WORKERS :])
    return {job.id for job in jobs if job.status is JobState.RUNNING}


def refusals(service: Service) -> Iterator[str]:
    """What is wrong with what the API says to new work, and to questions, while memory is full."""
    answer = service.client.post("/v1/jobs", json=noop_spec().model_dump(mode="json"))
    if kind(answer) != UNAVAILABLE or answer.json()["code"] != QueueUnavailable.code:
        yield f"a new job was answered {kind(answer)} while memory was full"
    if "maxmemory" not in answer.text:
        yield "the refusal does not say why"
    if not (listed := service.client.get("/v1/jobs")).is_success:
        yield f"a question was answered {kind(listed)} while memory was full"


def takes_work_again(bench: ChaosBench, service: Service) -> Iterator[str]:
    answer = service.client.post("/v1/jobs", json=noop_spec().model_dump(mode="json"))
    if answer.status_code == 202:
        bench.checker.accept(answer.json()["id"])
    else:
        yield f"a new job was answered {kind(answer)} after memory was free again"


SCENARIO = Scenario(
    name="R8",
    title="Redis reaches its maxmemory with jobs running and waiting, and is freed again",
    must="POST is answered 503 problem+json, running jobs finish; afterwards all goes on",
    run=run,
    short=Sizes(rounds=1, seconds=1),
    long=Sizes(rounds=10, seconds=10),
)


def test_a_full_server_takes_no_work_and_lets_work_be_finished(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["finished while full"] == WORKERS * SCENARIO.short.rounds
    assert outcome.facts["succeeded"] == outcome.facts["accepted"]
