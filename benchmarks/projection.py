"""What a projection saves of the disk, and what it does to scores: rank agreement with those of whole gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ascribe.settings import WorkerSettings
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject
from worker.local import LocalResult, run_locally
from worker.pipeline import Bench
from worker.scores.agreement import median_spearman

LONG_SIDES = (32, 64, 128)
METHODS: dict[str, dict[str, Any]] = {
    "plain products": {"curvature": {"kind": "none"}, "solver": {"kind": "identity"}},
    "gfim": {"curvature": {"kind": "gfim"}, "solver": {"kind": "cholesky"}},
}


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """The demo's model at several sizes of the long side; its rank, the short side, stays."""
    train = subject.write_rows("train", max(sizes.rows // 4, 16), sizes.tokens)
    validation = subject.write_rows("validation", sizes.queries, sizes.tokens)
    with TemporaryDirectory() as folder:
        bench = Bench(WorkerSettings(data_root=subject.data_root, cache_dir=Path(folder)))

        def job(method: str, projection: dict[str, int] | None) -> LocalResult:
            parameters = {"projection": projection}
            return run_locally(subject.spec(train, validation, parameters=parameters, **METHODS[method]), bench)

        whole = {method: job(method, None) for method in METHODS}
        for long_side in LONG_SIDES:
            for method, exact in whole.items():
                found = job(method, {"long_side": long_side})
                agreement = median_spearman(found.scores(), exact.scores())
                assert agreement is not None
                share = found.manifest.parameters / exact.manifest.parameters
                use = found.manifest.diagnostics.projection
                told = use and use.rank_agreement
                yield Row(
                    f"rank agreement at long_side {long_side}: {method}",
                    agreement,
                    "",
                    f"{found.manifest.parameters * 4 / 1024:.0f} KiB a row, {share:.0%} of the whole",
                    "-" if told is None else f"{told:.3f} told by the job itself",
                    f"{exact.manifest.train_rows} x {exact.manifest.validation_rows} rows",
                )
