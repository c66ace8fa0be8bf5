"""Per-example gradients of a dataset, read from the shards they are kept in: one tensor ``grad [n, P]`` a file.

The losses of a shard's rows are in its sidecar: scores that are computed elsewhere need the gradients of no row here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Tensor

from worker.shards import Shards


class Gradients:
    """All rows' gradients, of shards that are in the store.

    Attributes:
        shards: float32 ``[n_i, P]`` each, read-only views into files. One that is not on this disk is fetched, and one
            that is not what was written computed again, when it is first read.
        loss_N: float32 ``[N]``.
    """

    def __init__(self, kept: Shards) -> None:
        self.kept = kept
        self.shards: Sequence[Tensor] = _Lazy(
            len(kept.of.spans), lambda index: kept.tensor(kept.of.spans[index], "grad")
        )
        self.loss_N = torch.tensor([loss for span in kept.of.spans for loss in kept.facts(span)["loss"]])

    @property
    def rows(self) -> int:
        return len(self.loss_N)

    @property
    def hit_rows(self) -> int:
        """Rows that were there before this job."""
        return self.kept.found_rows

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the rows that were there, as far as they were read."""
        return self.kept.warnings()

    def block(self, columns: slice) -> Sequence[Tensor]:
        """One block's columns of every shard, as strided views: nothing is copied."""
        return _Lazy(len(self.shards), lambda index: self.shards[index][:, columns])


class _Lazy(Sequence[Tensor]):
    """Tensors that are got when they are asked for, once."""

    def __init__(self, count: int, get: Callable[[int], Tensor]) -> None:
        self._got: list[Tensor | None] = [None] * count
        self._get = get

    def __len__(self) -> int:
        return len(self._got)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        got = self._got[index]
        if got is None:
            got = self._got[index] = self._get(index)
        return got
