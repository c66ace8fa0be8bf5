"""No-op jobs a second through one server that has every write on disk before its reply, from submit to commit.

Beside them, in the same run, plain Celery with the same settings and a task of one write, and the ledger without
Celery. The workers and their work are those of the chaos suite.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ascribe.ledger.ids import new_job_id
from ascribe.ledger.opening import open_ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.settings import Settings
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject
from service.doorbell import CeleryDoorbell
from tests.chaos import plain_celery
from tests.chaos.bench import ChaosBench, group_members
from tests.chaos.noop_work import noop_spec
from tests.support.ledger import succeed

GOAL = 300.0
CLIENTS = 2
PATIENCE_SECONDS = 300.0
TIMES = {
    "ASCRIBE_LEASE_SECONDS": "60",
    "ASCRIBE_RECONCILE_SECONDS": "2",
    "ASCRIBE_RING_AGAIN_SECONDS": "15",
}
"""The service's own, not the chaos suite's short ones."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One run; all but ``rate`` are for each job. ``cpu_ms`` by kind of process."""

    rate: float
    cpu_ms: Mapping[str, float]
    commands: float
    scripts: float
    memory_bytes: float
    file_bytes: float


def measure(_: Subject, sizes: Sizes) -> Iterator[Row]:
    """Jobs, then tasks, for each number of workers."""
    jobs = {count: _jobs(sizes.noop_jobs, count) for count in sizes.noop_workers}
    tasks = {count: _tasks(sizes.noop_jobs, count) for count in sizes.noop_workers}
    shape = f"{sizes.noop_jobs} jobs, {CLIENTS} client threads"
    best = max(jobs, key=lambda count: jobs[count].rate)
    yield Row(
        "no-op jobs through submit, claim and commit",
        jobs[best].rate,
        "jobs/s",
        f"workers: {_told({f'{count}': seen.rate for count, seen in jobs.items()}, 0)}",
        f"plain Celery: {_told({f'{count}': rate for count, rate in tasks.items()}, 0)} tasks/s",
        shape,
        goal=GOAL,
    )
    alone = {count: _ledger_alone(sizes.noop_jobs, count) for count in (1, 2)}
    yield Row(
        "no-op jobs through Celery / the ledger alone",
        jobs[best].rate / max(alone.values()),
        "x",
        f"{jobs[best].rate:.0f} jobs/s",
        f"processes: {_told({f'{count}': rate for count, rate in alone.items()}, 0)} jobs/s",
        shape,
    )
    seen = jobs[best]
    yield Row(
        "processor time of a no-op job",
        sum(seen.cpu_ms.values()),
        "ms",
        f"{_told(seen.cpu_ms, 2)} ms",
        f"{best} workers",
        shape,
        goal=1000 / GOAL * 2,
        at_least=False,
    )
    yield Row(
        "Redis operations of a no-op job",
        seen.commands,
        "commands",
        f"inside {seen.scripts:.2f} scripts and what kombu sends",
        f"{seen.memory_bytes:.0f} bytes of memory, {seen.file_bytes:.0f} of append-only file",
        shape,
    )


def _jobs(count: int, workers: int) -> Seen:
    """Submitted as the API does it: create, then nudge the thread that sends the rings."""
    with _bench(workers) as bench, _sending(bench) as upkeep, ThreadPoolExecutor(CLIENTS) as clients:

        def submit(_: int) -> None:
            bench.submit(noop_spec())
            upkeep.nudge()

        submit(0)
        bench.await_ended(1, PATIENCE_SECONDS)  # connections, caches and scripts are warm
        before, began_cpu = _counters(bench), _cpu_seconds(bench)
        began = time.perf_counter()
        list(clients.map(submit, range(count)))
        bench.await_ended(1 + count, PATIENCE_SECONDS)
        rate = count / (time.perf_counter() - began)
        cpu, after = _cpu_seconds(bench), _counters(bench)
    grown = {name: (after[name] - before[name]) / count for name in after}
    used = {kind: (cpu[kind] - began_cpu[kind]) / count * 1000 for kind in cpu}
    return Seen(rate, used, grown["commands"], grown["scripts"], grown["memory"], grown["file"])


def _tasks(count: int, workers: int) -> float:
    """Tasks a second through plain Celery."""
    with (
        TemporaryDirectory() as folder,
        ThreadPoolExecutor(CLIENTS) as clients,
        ChaosBench(Path(folder), workers=workers, worker_app=plain_celery.__name__) as bench,
    ):
        producer = plain_celery.make_app(bench.settings)
        producer.send_task(plain_celery.TASK, args=[count])
        plain_celery.await_runs(bench, 1, PATIENCE_SECONDS)
        began = time.perf_counter()
        list(clients.map(lambda n: producer.send_task(plain_celery.TASK, args=[n]), range(count)))
        plain_celery.await_runs(bench, 1 + count, PATIENCE_SECONDS)
        return count / (time.perf_counter() - began)


def _ledger_alone(count: int, processes: int) -> float:
    """Jobs a second where each process creates, claims, stages and commits its own, one after the other."""
    share = count // processes
    with _bench(0) as bench, ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_work_through, [bench.settings] * processes, [1] * processes))
        began = time.perf_counter()
        list(pool.map(_work_through, [bench.settings] * processes, [share] * processes))
        return share * processes / (time.perf_counter() - began)


def _work_through(settings: Settings, count: int) -> None:
    ledger = open_ledger(settings)
    for _ in range(count):
        job_id = ledger.create(new_job_id(), noop_spec()).job.id
        claim = ledger.claim(job_id, 1, "alone")
        assert claim is not None
        succeed(ledger, claim, mean=bytes(100))
    ledger.close()


@contextmanager
def _bench(workers: int) -> Iterator[ChaosBench]:
    with TemporaryDirectory() as folder, ChaosBench(Path(folder), workers=workers, env=TIMES) as bench:
        yield bench


@contextmanager
def _sending(bench: ChaosBench) -> Iterator[Upkeep]:
    upkeep = Upkeep(bench.ledger, CeleryDoorbell(bench.settings), every_seconds=bench.settings.reconcile_seconds)
    upkeep.start()
    try:
        yield upkeep
    finally:
        upkeep.stop()


def _counters(bench: ChaosBench) -> dict[str, float]:
    stats: Any = bench.server.info("commandstats")
    info: Any = bench.server.info()
    return {
        "commands": sum(entry["calls"] for entry in stats.values()),
        "scripts": stats["cmdstat_evalsha"]["calls"],
        "memory": info["used_memory_dataset"],
        "file": info["aof_current_size"],
    }


def _cpu_seconds(bench: ChaosBench) -> dict[str, float]:
    leaders = [worker.process.pid for worker in bench.workers]
    members = [pid for leader in leaders for pid in group_members(leader) if pid != leader]
    return {
        "server": _cpu(bench.server_process.pid),
        "client": time.process_time(),
        "Celery's consumers": sum(map(_cpu, leaders)),
        "their children": sum(map(_cpu, members)),
    }


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100  # the kernel shows hundredths of a second everywhere


def _told(values: Mapping[str, float], digits: int) -> str:
    return ", ".join(f"{name}: {value:.{digits}f}" for name, value in values.items())
