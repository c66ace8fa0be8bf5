"""Per-example gradients on disk, in shards under a content fingerprint, resumable at a shard.

    <entry>/shard-00000.safetensors   grad float32 [n, P], loss float32 [n]
    <entry>/shard-00000.json          rows, parameters and sha256; written last: its presence says the shard is whole

Every file is written under a temporary name and renamed, so a reader sees a whole file or none, and two workers that
write one shard write the same bytes. No batch crosses a shard: a shard computed again has the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ascribe.errors import NonFinite, Problem
from ascribe.store import Damaged, Store
from worker.storage import storage_errors, write_tensors

ComputeShard = Callable[[int, int], tuple[Tensor, Tensor]]
"""(start, stop) to (loss_N, grad_NP) of those rows."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gradients:
    """All rows' gradients: memory-mapped shards, one after the other.

    Attributes:
        shards: float32 ``[n_i, P]`` each, read-only views into files.
        loss_N: float32 ``[N]``.
        hit_rows: rows that were there before this job.
        warnings: what was wrong with the rows that were there.
    """

    shards: tuple[Tensor, ...]
    loss_N: Tensor
    hit_rows: int
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.loss_N)

    def block(self, columns: slice) -> list[Tensor]:
        """One block's columns of every shard, as strided views: nothing is copied."""
        return [shard[:, columns] for shard in self.shards]


@dataclass(frozen=True, slots=True)
class _Shard:
    """Rows ``start`` to ``stop`` of a dataset, in one file."""

    path: Path
    start: int
    stop: int
    parameters: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def bytes(self) -> int:
        return self.rows * (self.parameters + 1) * torch.float32.itemsize

    @property
    def facts(self) -> dict[str, object]:
        return {"rows": [self.start, self.stop], "parameters": self.parameters}


def collect(
    folder: Path,
    rows: int,
    parameters: int,
    *,
    store: Store,
    shard_rows: int,
    pointer: str,
    compute: ComputeShard,
    on_rows: Callable[[int], None],
) -> Gradients:
    """Gradients of ``rows`` rows from ``folder``, an open entry of ``store``, computing the shards that are not there.

    A shard that is not what was written (a flipped bit, a torn file) is computed again, and a warning says so. Room
    for all that is missing is made before the first row is computed. ``compute`` reports its own progress by batch;
    ``on_rows`` is told the rows found in the cache.

    Raises:
        NonFinite: a loss or gradient is not finite; ``pointer`` and the row's index name the first such rows.
        StorageFailed: the missing shards cannot fit, or the folder cannot be written or read.
    """
    shards = [
        _Shard(folder / f"shard-{index:05d}.safetensors", start, min(start + shard_rows, rows), parameters)
        for index, start in enumerate(range(0, rows, shard_rows))
    ]
    missing: list[_Shard] = []
    damaged: list[_Shard] = []
    for shard in shards:
        try:
            with storage_errors():
                found = store.files.facts(shard.path) == shard.facts
        except Damaged:
            damaged.append(shard)
            found = False
        if found:
            on_rows(shard.rows)
        else:
            missing.append(shard)
    if missing:
        store.make_room(sum(shard.bytes for shard in missing))
    for shard in missing:
        _fill(shard, store, pointer, compute)
    with storage_errors():
        loaded = [_read(shard.path) for shard in shards]
    return Gradients(
        tuple(grad for grad, _ in loaded),
        torch.cat([loss for _, loss in loaded]),
        hit_rows=rows - sum(shard.rows for shard in missing),
        warnings=_warnings(damaged, pointer),
    )


def _fill(shard: _Shard, store: Store, pointer: str, compute: ComputeShard) -> None:
    loss_N, grad_NP = compute(shard.start, shard.stop)
    _check_finite(loss_N, grad_NP, shard.start, pointer)
    store.make_room(shard.bytes)  # another job may have taken the room since
    with storage_errors():
        store.files.save(shard.path, lambda path: write_tensors(path, {"grad": grad_NP, "loss": loss_N}), shard.facts)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("grad"), file.get_tensor("loss")


def _warnings(damaged: Sequence[_Shard], pointer: str) -> tuple[str, ...]:
    if not damaged:
        return ()
    spans = ", ".join(f"{shard.start} to {shard.stop - 1}" for shard in damaged[:5])
    more = f" and {len(damaged) - 5} more shards" if len(damaged) > 5 else ""
    warning = (
        f"cached gradients of the {pointer.strip('/')} rows {spans}{more} did not match their checksum and were "
        "computed again: check the disk of the cache directory"
    )
    log.warning(warning)
    return (warning,)


def _check_finite(loss_N: Tensor, grad_NP: Tensor, start: int, pointer: str) -> None:
    # A sum in float64 is finite if and only if every float32 term is, and unlike isfinite needs no copy of the shard.
    finite_N = torch.isfinite(loss_N) & torch.isfinite(grad_NP.sum(1, dtype=torch.float64))
    if finite_N.all():
        return
    bad = [start + int(i) for i in (~finite_N).nonzero().flatten()]
    problems = [
        Problem(f"{pointer}/source/rows/{row}", "non_finite", "loss or gradient is not finite") for row in bad[:20]
    ]
    raise NonFinite(
        f"loss or gradient of {len(bad)} row(s) is not finite, the first is row {bad[0]} (from 0): "
        "drop the rows, or run the model in float32",
        errors=problems,
    )
