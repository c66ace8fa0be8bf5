"""R10: many callers with one key at once, while one of two APIs is killed under them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ascribe.ledger.base import JobFilter
from ascribe.spec import JobSpec
from tests.chaos.bench import ChaosBench
from tests.chaos.load import UNAVAILABLE, kind
from tests.chaos.noop_work import noop_spec
from tests.chaos.outcome import Outcome, Scenario
from tests.support.processes import Service
from tests.support.tiny import make_checkpoint

APIS = 2
PATIENCE_SECONDS = 60.0
AGAIN_SECONDS = 0.05
WITHIN_SECONDS = 0.2
"""Of the first request the API is killed."""


@dataclass(frozen=True, slots=True)
class Sizes:
    keys: int
    callers: int
    kill_every: int
    """One key in so many has an API killed under it."""


@dataclass
class Found:
    kills: int = 0
    cut_off: int = 0
    """Requests that ended without an answer, and were sent again."""
    broken: list[str] = field(default_factory=list)


def run(folder: Path, sizes: Sizes) -> Outcome:
    make_checkpoint(folder / "data")
    found = Found()
    with ChaosBench(folder, workers=1) as bench, ExitStack() as stack:
        apis = [stack.enter_context(bench.api()) for _ in range(APIS)]
        for number in range(sizes.keys):
            victim = number % APIS if number % sizes.kill_every == 0 else None
            spec = noop_spec().model_copy(update={"labels": {"number": str(number)}})
            answers = asyncio.run(all_at_once(bench, apis, spec, sizes.callers, victim, found))
            check(bench, number, answers, found)
            if victim is not None:
                found.kills += 1
                apis[victim] = stack.enter_context(bench.api())
        bench.checker.wait(PATIENCE_SECONDS)
        outcome = bench.checker.outcome()
    facts = {
        "keys": sizes.keys,
        "requests with one key": sizes.callers,
        "API kills": found.kills,
        "requests cut off and sent again": found.cut_off,
    }
    return outcome.beside(Outcome(facts, tuple(found.broken)))


async def all_at_once(
    bench: ChaosBench, apis: Sequence[Service], spec: JobSpec, callers: int, victim: int | None, found: Found
) -> list[httpx.Response]:
    """What each caller was told in the end."""
    urls = itertools.cycle([str(api.client.base_url) for api in apis])
    body, key = spec.model_dump(mode="json"), {"Idempotency-Key": f"key-{spec.labels['number']}"}

    async def call(client: httpx.AsyncClient) -> httpx.Response:
        while True:
            try:
                answer = await client.post(f"{next(urls)}/v1/jobs", json=body, headers=key)
            except httpx.TransportError:
                found.cut_off += 1
            else:
                if answer.is_success:
                    return answer
                if kind(answer) != UNAVAILABLE:
                    found.broken.append(f"answered {kind(answer)}: {answer.text}")
            await asyncio.sleep(AGAIN_SECONDS)

    async def kill() -> None:
        if victim is not None:
            await asyncio.sleep(bench.random.uniform(0, WITHIN_SECONDS))
            apis[victim].process.kill()
            apis[victim].process.wait()

    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        httpx.AsyncClient(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=callers)) as client,
    ):
        *answers, _ = await asyncio.gather(*(call(client) for _ in range(callers)), kill())
    return [answer for answer in answers if answer is not None]


def check(bench: ChaosBench, number: int, answers: Sequence[httpx.Response], found: Found) -> None:
    """One job for the key, told to all; whoever made it was told 202, the others 200."""
    told = {answer.json()["id"] for answer in answers}
    made = {job.id for job in bench.ledger.list(JobFilter(labels={"number": str(number)})).jobs}
    if len(made) != 1 or told != made:
        found.broken.append(f"key {number} made {len(made)} jobs and named {len(told)}")
    if sum(answer.status_code == 202 for answer in answers) > 1:
        found.broken.append(f"key {number}: more than one caller was told that the job is new")
    for job_id in made:
        bench.checker.accept(job_id)


SCENARIO = Scenario(
    name="R10",
    title="50 POSTs with one Idempotency-Key at once, 200 times; one of two APIs SIGKILLed under some",
    must="exactly one job a key",
    run=run,
    short=Sizes(keys=6, callers=50, kill_every=1),
    long=Sizes(keys=200, callers=50, kill_every=5),
)


def test_one_key_makes_one_job_whoever_dies(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["succeeded"] == SCENARIO.short.keys
    assert outcome.facts["requests cut off and sent again"], "no request was in flight when an API died"
