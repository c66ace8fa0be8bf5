"""A process that runs one job's pipeline and nothing else, and says how much memory it needed.

    python -m benchmarks.child SETTINGS SPEC

Both arguments are JSON. Prints seconds, the peak of RssAnon: memory that is the process's own, without the mapped
gradient files, which the system takes back when it needs them; and what the job itself says of its memory and disk.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from ascribe.job import Progress
from ascribe.results.columns import Columns
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from worker.pipeline import Bench, run
from worker.progress import Reporter
from worker.sharing import Alone

_EVERY_SECONDS = 0.005


class Discard:
    """A sink that keeps nothing, as a worker's, which hands its vectors on."""

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        del name
        for _ in chunks:
            pass

    def spill(self, columns: Columns) -> None:
        """All vectors are staged."""

    def announce(self, gradient_fingerprint: str, rows: int) -> None:
        del gradient_fingerprint, rows


def quiet(progress: Progress) -> bool:
    """A job that nobody watches and nobody cancels."""
    del progress
    return False


class Watch(threading.Thread):
    """Reads RssAnon now and then while the job runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
            self.peak_bytes = max(self.peak_bytes, kilobytes * 1024)
            time.sleep(_EVERY_SECONDS)


def main() -> None:
    settings = WorkerSettings.model_validate_json(sys.argv[1])
    spec = JobSpec.model_validate_json(sys.argv[2])
    watch = Watch()
    watch.start()
    started = time.perf_counter()
    manifest = run(spec, Bench(settings), Reporter(quiet), Discard(), Alone())
    seconds, diagnostics = time.perf_counter() - started, manifest.diagnostics
    names = ("peak_memory_bytes", "estimated_memory_bytes", "disk_bytes", "estimated_disk_bytes")
    took = {name: getattr(diagnostics, name) for name in names}
    print(json.dumps({"seconds": seconds, "peak_bytes": watch.peak_bytes, "rows": manifest.train_rows, **took}))


if __name__ == "__main__":
    main()
