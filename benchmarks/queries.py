"""New validation rows for a job that is done: from the request to the scores, over HTTP, on a warm worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ascribe.client import Client
from ascribe.embedded import Stack
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """The median of some queries, each with rows of its own; one more before them is not counted."""
    train = subject.write_rows("train", sizes.rows, sizes.tokens)
    validation = subject.write_rows("validation", sizes.queries, sizes.tokens)
    with (
        TemporaryDirectory() as state,
        Stack(subject.data_root, state_dir=Path(state)) as stack,
        Client(stack.url) as client,
    ):
        job = client.create_and_wait(subject.spec(train, validation))
        seconds = []
        for index in range(sizes.repeats + 1):
            rows = list(subject.long_rows(f"new-{index}", sizes.new_queries, sizes.tokens))
            started = time.perf_counter()
            asked = client.query(job.id, {"source": {"kind": "inline", "rows": rows}})
            done = client.wait(asked.id)
            client.scores(done.id, validation_id=rows[0]["id"], top_k=10)
            seconds.append(time.perf_counter() - started)
    assert done.result is not None
    yield Row(
        f"{sizes.new_queries} new queries, request to scores",
        median(seconds[1:]),
        "s",
        f"{min(seconds[1:]):.2f} to {max(seconds[1:]):.2f} s",
        f"{done.result.diagnostics.seconds['total']:.2f} s of it the worker's last",
        f"N = {sizes.rows}, Q = {sizes.new_queries}",
        goal=2.0,
        at_least=False,
    )
