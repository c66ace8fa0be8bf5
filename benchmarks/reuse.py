"""A second job on cached gradients with another solver and validation set, as a share of the first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from benchmarks.child import Discard, quiet
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject
from worker.pipeline import Bench, run
from worker.progress import Reporter
from worker.sharing import Alone

SECOND = (
    ("gfim", "cholesky"),  # the first job's matrix, solved otherwise
    ("empirical_fisher", "datainf"),  # nothing but its gradients
)


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """The whole pipeline each time; only the first job loads the model and computes the train rows' gradients."""
    train = subject.write_rows("train", sizes.rows, sizes.tokens)
    with TemporaryDirectory() as cache:
        bench = Bench(WorkerSettings(data_root=subject.data_root, cache_dir=Path(cache)))
        first = _seconds(bench, subject.spec(train, subject.write_rows("validation", sizes.queries, sizes.tokens)))
        for curvature, solver in SECOND:
            validation = subject.write_rows(f"validation-{solver}", sizes.queries, sizes.tokens)
            spec = subject.spec(train, validation, curvature={"kind": curvature}, solver={"kind": solver})
            second = _seconds(bench, spec)
            yield Row(
                f"second job ({curvature}, {solver}) / first (gfim, schulz)",
                second / first,
                "of it",
                f"{second:.2f} s",
                f"{first:.1f} s",
                str(sizes),
                goal=0.15,
                at_least=False,
            )


def _seconds(bench: Bench, spec: JobSpec) -> float:
    started = time.perf_counter()
    run(spec, bench, Reporter(quiet), Discard(), Alone())
    return time.perf_counter() - started
