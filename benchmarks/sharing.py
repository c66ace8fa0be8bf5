"""Gradient caching of one job by two workers, as a share of what one takes: real workers, one thread each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Phase
from ascribe.spec import JobSpec
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject

SHARD_ROWS = 64
"""So that there are parts enough for the last one not to decide."""
REPEATS = 3
TIMEOUT_SECONDS = 600.0


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """Each time from an empty cache, with the model warm in every worker."""
    train = subject.write_rows("train", sizes.rows, sizes.tokens)
    validation = subject.write_rows("validation", sizes.queries, sizes.tokens)
    spec = _spec(subject, train, validation)
    seconds: list[float] = []
    helped = 0
    for workers in (1, 2):
        with _running(subject, workers) as (stack, client):
            _warm(subject, sizes, client, workers)
            runs = [_cache(stack, client, spec) for _ in range(min(REPEATS, sizes.repeats))]
        seconds.append(median(each for each, _ in runs))
        helped = min(rows for _, rows in runs)
    one, two = seconds
    yield Row(
        "gradient caching, two workers / one",
        two / one,
        "of it",
        f"{two:.2f} s, at least {helped} rows by the second",
        f"{one:.2f} s",
        f"{sizes}, {SHARD_ROWS} rows a shard",
        goal=0.6,
        at_least=False,
    )


@contextmanager
def _running(subject: Subject, workers: int) -> Iterator[tuple[Stack, Client]]:
    env = {"ASCRIBE_SHARD_ROWS": str(SHARD_ROWS)}
    with TemporaryDirectory() as folder:
        stack = Stack(subject.data_root, state_dir=Path(folder), workers=workers, env=env)
        with stack, Client(stack.url) as client:
            yield stack, client


def _spec(subject: Subject, train: str, validation: str) -> JobSpec:
    """What comes after the gradients is not measured."""
    return subject.spec(train, validation, curvature={"kind": "none"}, solver={"kind": "identity"})


def _warm(subject: Subject, sizes: Sizes, client: Client, workers: int) -> None:
    """A small job for each worker, at the same time."""
    names = [subject.write_rows(f"warm-{number}", sizes.queries, sizes.tokens) for number in range(workers)]
    for job in [client.create(_spec(subject, name, name)) for name in names]:
        client.wait(job.id, timeout=TIMEOUT_SECONDS)


def _cache(stack: Stack, client: Client, spec: JobSpec) -> tuple[float, int]:
    """Seconds of the phase, and the rows that were not its owner's."""
    shutil.rmtree(stack.cache_dir / "gradients", ignore_errors=True)
    job = client.create_and_wait(spec, timeout=TIMEOUT_SECONDS)
    assert job.result is not None, job.error
    rows_by = dict(job.result.diagnostics.workers)
    rows_by.pop(job.attempts[-1].worker, None)
    return job.result.diagnostics.seconds[Phase.CACHING_GRADIENTS.value], sum(rows_by.values())
