"""Peak memory of a worker's job at 1x and 4x the train rows: flat, but for the scores and the rows' texts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject

MIB = 2**20


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """Each size in a process of its own that computes its gradients, scores them, and ends."""
    few, many = sizes.rows, 4 * sizes.rows
    validation = subject.write_rows("validation", sizes.queries, sizes.tokens)
    small, large = (
        _peak(subject, subject.write_rows(f"train-{rows}", rows, sizes.tokens), validation) for rows in (few, many)
    )
    scores = (many - few) * (sizes.queries + 2) * 4
    yield Row(
        "peak RssAnon, 4x rows / 1x rows",
        large / small,
        "x",
        f"{large / MIB:.0f} MiB at N = {many}",
        f"{small / MIB:.0f} MiB at N = {few}; {scores / MIB:.1f} MiB more scores",
        f"N = {few} and {many}, Q = {sizes.queries}",
        goal=1.1,
        at_least=False,
    )


def _peak(subject: Subject, train: str, validation: str) -> float:
    spec = subject.spec(train, validation).model_dump_json()
    with TemporaryDirectory() as cache:
        settings = json.dumps({"data_root": str(subject.data_root), "cache_dir": cache})
        command = [sys.executable, "-m", "benchmarks.child", settings, spec]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path.cwd())
    return float(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])
