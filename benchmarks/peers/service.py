"""Ascribe as its users meet it: jobs over HTTP, through Redis and Celery, by a worker that is warm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job
from ascribe.spec import JobSpec

PATIENCE_SECONDS = 3600.0
BESIDE_THE_SCORES = 4
"""Columns of a score table before those of the validation rows."""


@dataclass(frozen=True, slots=True)
class Asked:
    """From the request to the last score in hand. ``processor_seconds``: of server, API, worker and client together."""

    job: Job
    score_QN: NDArray[np.float64]
    seconds: float
    processor_seconds: float


@dataclass(frozen=True, slots=True)
class Service:
    client: Client

    def ask(self, spec: JobSpec) -> Asked:
        """A job of its own."""
        began, processor = time.perf_counter(), _processor_seconds()
        return self._finish(self.client.create(spec), began, processor)

    def ask_again(self, job: Job, validation: str) -> Asked:
        """New validation rows on what an earlier job left."""
        began, processor = time.perf_counter(), _processor_seconds()
        rows = {"source": {"kind": "file", "path": f"{validation}.jsonl"}}
        return self._finish(self.client.query(job.id, rows), began, processor)

    def _finish(self, job: Job, began: float, processor: float) -> Asked:
        job = self.client.wait(job.id, timeout=PATIENCE_SECONDS)
        table = self.client.scores_table(job.id, vector="all")
        score_QN = np.array([column.to_numpy() for column in table.columns[BESIDE_THE_SCORES:]], dtype=np.float64)
        return Asked(job, score_QN, time.perf_counter() - began, _processor_seconds() - processor)


@contextmanager
def service(data_root: Path) -> Iterator[Service]:
    """With nothing cached."""
    with TemporaryDirectory() as state, Stack(data_root, state_dir=state) as stack, Client(stack.url) as client:
        yield Service(client)


def _processor_seconds() -> float:
    """Of this process and all below it that still run; none of the service's ends while it is asked."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since the folder was read
        process = int(stat.parent.name)
        parents[process], ticks[process] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {os.getpid()}
    while grown := {process for process, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(ticks[process] for process in family) / os.sysconf("SC_CLK_TCK")
