"""R7: the disk is full, or its folder gone, while a real worker writes shards of gradients."""

from __future__ import annotations

import itertools
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ascribe.errors import StorageFailed
from ascribe.job import Job, JobState, Phase
from ascribe.spec import JobSpec
from ascribe.store import Damaged, Store
from ascribe.store.pins import LOCK
from tests.chaos.bench import ChaosBench, group_members
from tests.chaos.outcome import Fact, Outcome, Scenario
from tests.support.faults.limits import files_end_at
from tests.support.faults.small_disk import CannotMount, filled, small_disk
from tests.support.jobs import make_spec
from tests.support.tiny import make_checkpoint, make_rows, write_rows
from tests.support.waiting import await_that
from worker.environment import IDENTITY

SHARD_ROWS = 16
ROWS = 800
VALIDATION_ROWS = 4
FILE_BYTES = 30_000
"""Less than a shard: 16 rows of a thousand float32 gradients."""
DISK_BYTES = 64 << 20
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Sizes:
    rounds: int
    """Of each kind of full disk."""


@dataclass
class Found:
    failed: int = 0
    kept_rows: int = 0
    """Written whole before the disk was full, and not computed again."""
    finished: int = 0
    broken: list[str] = field(default_factory=list)


Fault = Callable[[ChaosBench, JobSpec], Job]
"""Runs a job into this trouble, and returns it once it has ended and the trouble is over."""


def run(folder: Path, sizes: Sizes) -> Outcome:
    make_checkpoint(folder / "data")
    write_rows(folder / "data" / "validation.jsonl", make_rows(VALIDATION_ROWS))
    env = {
        "ASCRIBE_DATA_ROOT": str(folder / "data"),
        "ASCRIBE_LEASE_SECONDS": "20",  # leases are not what is tested, and to import torch takes a busy machine long
        "ASCRIBE_SHARD_ROWS": str(SHARD_ROWS),
        "ASCRIBE_TOKEN_BUDGET": "64",
        "ASCRIBE_CACHE_RESERVE_BYTES": "0",
        "HF_HUB_OFFLINE": "1",
    }
    faults = {"file size limit": end_of_files, "removed folder": removed}
    found = Found()
    with ExitStack() as stack:
        try:
            stack.enter_context(small_disk(folder / "cache", DISK_BYTES))
            faults["filled disk"] = end_of_disk
        except CannotMount:
            pass  # the limit alone, then
        bench = stack.enter_context(ChaosBench(folder, workers=1, worker_app="worker.app", env=env))
        first = ended(bench, bench.submit(new_spec(bench, "first")))
        assert first.status is JobState.SUCCEEDED, first.error
        for name, number in itertools.product(faults, range(sizes.rounds)):
            problems = try_out(bench, faults[name], new_spec(bench, f"{name} {number}"), found)
            found.broken += (f"{name}: {problem}" for problem in problems)
    facts: dict[str, Fact] = {
        "troubles": ", ".join(faults),
        "failed with storage": found.failed,
        "finished once there was room": found.finished,
        "rows kept from before": found.kept_rows,
    }
    return Outcome(facts, tuple(found.broken))


def new_spec(bench: ChaosBench, name: str) -> JobSpec:
    """A job on rows of its own: nothing of it is in the cache."""
    path = f"{name.replace(' ', '-')}.jsonl"
    rows = make_rows(ROWS, seed=zlib.crc32(name.encode()))
    write_rows(bench.folder / "data" / path, rows)
    return make_spec(train={"source": {"kind": "file", "path": path}})


def ended(bench: ChaosBench, job_id: str) -> Job:
    await_that(lambda: bench.ledger.get(job_id).status.terminal, f"{job_id} ended", within_seconds=PATIENCE_SECONDS)
    return bench.ledger.get(job_id)


def end_of_files(bench: ChaosBench, spec: JobSpec) -> Job:
    with files_end_at(FILE_BYTES, list(group_members(bench.workers[0].process.pid))):
        return ended(bench, bench.submit(spec))


def end_of_disk(bench: ChaosBench, spec: JobSpec) -> Job:
    """In the middle of the shards: a disk that is full before is noticed before the first is written.

    Earlier jobs' entries go first: the cache would make room of them, as it should.
    """
    store = Store(bench.folder / "cache", max_bytes=None)
    for entry in store.entries():
        store.remove(entry.kind, entry.key)
    job_id = at_shards(bench, spec)
    with filled(bench.folder / "cache"):
        return ended(bench, job_id)


def removed(bench: ChaosBench, spec: JobSpec) -> Job:
    """The gradients' folder is taken away under the worker."""
    job_id = at_shards(bench, spec)
    taken = (bench.folder / "cache" / "gradients").rename(bench.folder / "cache" / ".taken")
    job = ended(bench, job_id)
    shutil.rmtree(taken)
    return job


def at_shards(bench: ChaosBench, spec: JobSpec) -> str:
    """A job that has written a shard and has more to write."""
    job_id = bench.submit(spec)

    def caching() -> bool:
        progress = bench.ledger.get(job_id).progress
        return progress is not None and progress.phase is Phase.CACHING_GRADIENTS and progress.done > SHARD_ROWS

    await_that(caching, f"{job_id} caches gradients", within_seconds=PATIENCE_SECONDS)
    return job_id


def try_out(bench: ChaosBench, fault: Fault, spec: JobSpec, found: Found) -> Iterator[str]:
    job = fault(bench, spec)
    if job.status is JobState.FAILED and job.error is not None and job.error.code == StorageFailed.code:
        found.failed += 1
    else:
        yield f"the job {job.status}, {job.error.code if job.error else 'without an error'}"
    if list(bench.server.scan_iter(f"*:scores:{job.id}:*")):
        yield "the failed job has scores"
    yield from leftovers(bench.folder / "cache")
    again = ended(bench, bench.submit(spec))
    if again.status is not JobState.SUCCEEDED or again.result is None:
        yield f"the same job {again.status} on a disk with room"
        return
    found.finished += 1
    found.kept_rows += again.result.diagnostics.cache["train"].hit_rows


def leftovers(cache: Path) -> Iterator[str]:
    """What is on the disk and is not the whole of something."""
    files = Store(cache, max_bytes=None).files
    for path in cache.rglob("*"):
        if path.name.startswith(".") and path.name not in (LOCK, IDENTITY):
            yield f"{path.name} was left behind"
        elif path.suffix == ".safetensors":
            try:
                if files.facts(path) is None:
                    yield f"{path.name} has nothing that says it is whole"
            except Damaged:
                yield f"{path.name} is not whole"


SCENARIO = Scenario(
    name="R7",
    title="files meet a size limit, a small disk is filled, the folder is removed, while shards are written",
    must="`failed: storage`, nothing half-written visible, space freed; the next job works",
    run=run,
    short=Sizes(rounds=1),
    long=Sizes(rounds=10),
)


def test_a_full_disk_fails_the_job_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    outcome = run(tmp_path, SCENARIO.short)
    assert outcome.passed, outcome.broken
    assert outcome.facts["failed with storage"] == outcome.facts["finished once there was room"]
