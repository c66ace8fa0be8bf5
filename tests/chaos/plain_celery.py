"""R2 without a ledger: the same number of no-op tasks through plain Celery, under the same kills.

The settings are those of ascribe/broker.py, the best that Celery offers (acknowledged late, rejected on a lost worker,
one prefetched), with a visibility timeout short enough that the broker has its chance to deliver again.

celery -A tests.chaos.plain_celery worker --without-gossip --without-mingle -Q cpu
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import redis
from celery import Celery, shared_task
from celery.signals import worker_ready

from ascribe.broker import celery_options
from ascribe.ledger.opening import open_ledger
from ascribe.settings import Settings, WorkerSettings
from tests.chaos.bench import ChaosBench
from tests.chaos.killing import Sizes
from tests.chaos.outcome import Outcome, Scenario
from worker.environment import worker_info

TASK = "chaos.plain"
VISIBILITY_SECONDS = 20
BOUND_SECONDS = 90.0
"""The visibility timeout, and the minute that the ledger has too."""
RUNS = "plain:runs"
READY_SECONDS = 3600.0


def make_app(settings: Settings) -> Celery:
    made = Celery("plain", include=[__name__], set_as_current=False)
    options = celery_options(settings)
    options["broker_transport_options"] |= {"visibility_timeout": VISIBILITY_SECONDS}
    made.conf.update(options)
    return made


app = make_app(Settings())


@cache
def server() -> redis.Redis:
    return redis.Redis.from_url(os.environ["ASCRIBE_REDIS_URL"])


@shared_task(name=TASK)  # type: ignore[untyped-decorator]  # celery has no annotations
def plain(number: int) -> None:
    server().hincrby(RUNS, str(number), 1)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _say_ready(**_: Any) -> None:
    """As our own workers do, so that the bench knows whom it can kill."""
    settings = WorkerSettings()
    open_ledger(settings).register_worker(worker_info(settings), READY_SECONDS)


def run(folder: Path, sizes: Sizes) -> Outcome:
    with (
        ChaosBench(folder, workers=sizes.workers, worker_app=__name__) as bench,
        ThreadPoolExecutor(1) as submitting,
    ):
        producer = make_app(bench.settings)
        sent = submitting.submit(lambda: [producer.send_task(TASK, args=[n]) for n in range(sizes.jobs)])
        for number in range(sizes.kills):
            await_runs(bench, round(sizes.jobs * 0.95 * (number + bench.random.random()) / sizes.kills), 600)
            bench.kill_any_worker()
        sent.result()
        _wait_for(bench, sizes.jobs, BOUND_SECONDS)
        # What was delivered again may run a second time a little later.
        time.sleep(2)
        runs = [int(count) for count in bench.server.hvals(RUNS)]
    return Outcome(
        {
            "sent": sizes.jobs,
            "worker kills": sizes.kills,
            "never ran": sizes.jobs - len(runs),
            "ran more than once": sum(count > 1 for count in runs),
        }
    )


def await_runs(bench: ChaosBench, count: int, within_seconds: float) -> None:
    """Until so many different tasks have run. Raises TimeoutError."""
    if not _wait_for(bench, count, within_seconds):
        raise TimeoutError(f"{count} tasks had not run after {within_seconds:g} s")


def _wait_for(bench: ChaosBench, count: int, within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    while bench.server.hlen(RUNS) < count:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


SCENARIO = Scenario(
    name="R2 plain Celery",
    title="the same number of no-op tasks and kills without a ledger",
    must="",
    run=run,
    short=Sizes(jobs=300, kills=3, workers=2, longest_ms=0),
    long=Sizes(jobs=30_000, kills=40, workers=2, longest_ms=0),
)
