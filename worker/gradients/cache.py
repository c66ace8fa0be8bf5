"""Per-example gradients on disk, in shards under a content fingerprint, resumable at a shard.

    <cache>/<fingerprint>/shard-00000.safetensors   grad float32 [n, P], loss float32 [n]
    <cache>/<fingerprint>/shard-00000.json          rows and sha256; written last: its presence says the shard is whole

Every file is written under a temporary name and renamed, so a reader sees a whole file or none, and two workers that
write one shard write the same bytes. No batch crosses a shard: a shard computed again has the same bits.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ascribe.errors import NonFinite, Problem, StorageFailed
from ascribe.fingerprint import file_sha256

ComputeShard = Callable[[int, int], tuple[Tensor, Tensor]]
"""(start, stop) to (loss_N, grad_NP) of those rows."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """All rows' gradients: memory-mapped shards, one after the other.

    Attributes:
        shards: float32 ``[n_i, P]`` each, read-only views into files.
        loss_N: float32 ``[N]``.
        hit_rows: rows that were there before this job.
    """

    shards: tuple[Tensor, ...]
    loss_N: Tensor
    hit_rows: int

    @property
    def rows(self) -> int:
        return len(self.loss_N)

    def block(self, columns: slice) -> list[Tensor]:
        """One block's columns of every shard, as strided views: nothing is copied."""
        return [shard[:, columns] for shard in self.shards]


def collect(
    folder: Path,
    rows: int,
    parameters: int,
    *,
    shard_rows: int,
    pointer: str,
    compute: ComputeShard,
    on_rows: Callable[[int], None],
) -> Gradients:
    """Gradients of ``rows`` rows from ``folder``, computing the shards that are not there yet.

    ``compute`` reports its own progress by batch; ``on_rows`` is told the rows found in the cache.

    Raises:
        NonFinite: a loss or gradient is not finite; ``pointer`` and the row's index name the first such rows.
        StorageFailed: the folder cannot be written or read.
    """
    hit_rows = 0
    with _storage_errors():
        folder.mkdir(parents=True, exist_ok=True)
    bounds = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]
    for index, (start, stop) in enumerate(bounds):
        path = folder / f"shard-{index:05d}.safetensors"
        if _is_whole(path, start, stop, parameters):
            hit_rows += stop - start
            on_rows(stop - start)
            continue
        loss_N, grad_NP = compute(start, stop)
        _check_finite(loss_N, grad_NP, start, pointer)
        with _storage_errors():
            _write(path, loss_N, grad_NP, start, stop)
    with _storage_errors():
        loaded = [_read(folder / f"shard-{index:05d}.safetensors") for index in range(len(bounds))]
    return Gradients(tuple(grad for grad, _ in loaded), torch.cat([loss for _, loss in loaded]), hit_rows)


def _is_whole(path: Path, start: int, stop: int, parameters: int) -> bool:
    sidecar = path.with_suffix(".json")
    if not (sidecar.exists() and path.exists()):
        return False
    try:
        stated = json.loads(sidecar.read_bytes())
        with safe_open(path, framework="pt") as file:
            shape = file.get_slice("grad").get_shape()
    except (OSError, ValueError, SafetensorError):
        return False  # a torn file after a power cut: compute it again
    return bool(stated["rows"] == [start, stop] and shape == [stop - start, parameters])


def _write(path: Path, loss_N: Tensor, grad_NP: Tensor, start: int, stop: int) -> None:
    with _renamed_into_place(path) as temporary:
        save_file({"grad": grad_NP.contiguous(), "loss": loss_N.contiguous()}, temporary)
        digest = file_sha256(temporary)
    with _renamed_into_place(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({"rows": [start, stop], "sha256": digest}))


@contextmanager
def _renamed_into_place(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("grad"), file.get_tensor("loss")


def _check_finite(loss_N: Tensor, grad_NP: Tensor, start: int, pointer: str) -> None:
    finite_N = torch.isfinite(loss_N) & torch.isfinite(grad_NP).all(1)
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


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StorageFailed("the gradient cache cannot be written or read: check its disk space and rights") from error
