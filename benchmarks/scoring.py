"""All pairs scored from memory-mapped shards, beside a bare float32 product of the same shapes in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Generator, Tensor

from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject, load
from worker.scores.influence import influence

SHARD_ROWS = 256


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """Ratios of runs one after the other, the median of ``sizes.repeats``; the numbers themselves are random."""
    train = subject.write_rows("few", sizes.queries, sizes.tokens)
    with TemporaryDirectory() as folder:
        checkpoint = load(subject, subject.spec(train, train), Path(folder))[0].checkpoint
        grad_NP = _mapped(Path(folder) / "train", sizes.rows, checkpoint.parameters)
        shards = torch.split(grad_NP, SHARD_ROWS)
        ihvp_QP = torch.randn(sizes.queries, checkpoint.parameters, dtype=torch.float64)
        in_memory_NP, single_QP = grad_NP.clone(), ihvp_QP.float()
        pairs = []
        for _ in range(sizes.repeats):
            started = time.perf_counter()
            score_QN = torch.cat([influence([shard], ihvp_QP, "all blocks") for shard in shards], dim=1)
            middle = time.perf_counter()
            single_QP @ in_memory_NP.T
            pairs.append((middle - started, time.perf_counter() - middle))
        expected_QN = torch.cat([ihvp_QP @ shard.double().T for shard in shards], dim=1)
    error = float((score_QN - expected_QN).norm() / expected_QN.norm())
    ours, bare = (median(column) for column in zip(*pairs, strict=True))
    yield Row(
        "scoring / bare float32 product",
        median(bare / ours for ours, bare in pairs),
        "x",
        f"{ours:.3f} s, off float64 by {error:.0e}",
        f"{bare:.3f} s",
        f"{sizes.queries} x {checkpoint.parameters} by {checkpoint.parameters} x {sizes.rows}",
        goal=0.6,
    )


def _mapped(path: Path, rows: int, parameters: int) -> Tensor:
    """Random rows in a file, written a shard at a time, and the file as a tensor."""
    generator = Generator().manual_seed(0)
    with path.open("wb") as file:
        for start in range(0, rows, SHARD_ROWS):
            count = min(SHARD_ROWS, rows - start)
            file.write(torch.randn(count, parameters, generator=generator).numpy().data)
    return torch.from_file(str(path), shared=False, size=rows * parameters).view(rows, parameters)
