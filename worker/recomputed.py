"""Gradients of the train rows that are kept nowhere: one pass sums them up, and each reading is a pass that makes them
again.

A shard is computed as it would be for the cache, so that sums and scores have the bits of a job with cached gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from ascribe.errors import LimitExceeded
from ascribe.sources.checkpoints import BlockShape
from worker.curvature.gfim import ShardSums, is_dense, sum_shard
from worker.curvatures.base import tensor_blocks
from worker.gradients.cache import Gradients
from worker.operators import RowsOperator
from worker.shards import Pass, Shards


class Recomputed(Gradients):
    """With sums over all rows, a block each, which :meth:`take_sums` hands over; the matrix of one is empty where
    ``matrices`` are not asked for.

    Raises:
        LimitExceeded: a block has more sums than the rows' gradients have entries: there is nothing to save.
        NonFinite: from a row.
    """

    def __init__(self, kept: Shards, shapes: Sequence[BlockShape], *, matrices: bool) -> None:
        self.kept = kept
        self.shards: Sequence[Tensor] = _Fresh(kept.of)
        blocks = tensor_blocks(shapes)
        if matrices and not all(is_dense(kept.rows, block.shape.rank, block.shape.long_side) for block in blocks):
            raise LimitExceeded.at(
                "/gradients",
                "too_few_rows",
                "the curvature of so few train rows is made of their gradients themselves: leave gradients 'cached'",
            )
        losses: list[float] = []
        self._sums: list[ShardSums | None] = [None for _ in blocks]
        for span in kept.of.spans:
            saved = kept.of.compute(span)
            losses += saved.facts["loss"]
            for index, block in enumerate(blocks):
                part_nP = saved.tensors["grad"][:, block.columns]
                self._sums[index] = _joined(self._sums[index], _summed(part_nP, block.shape.long_side, matrices))
        self.loss_N = torch.tensor(losses)

    def take_sums(self, index: int) -> ShardSums:
        """Of a block, once: a curvature is made of them, and both would be twice as much."""
        taken, self._sums[index] = self._sums[index], None
        assert taken is not None
        return taken

    @property
    def hit_rows(self) -> int:
        return 0

    def block(self, columns: slice) -> Sequence[Tensor]:
        return _Fresh(self.kept.of, columns)


def _summed(part_nP: Tensor, long_side: int, matrices: bool) -> ShardSums:
    if matrices:
        return sum_shard(part_nP, long_side)
    return ShardSums(torch.zeros(0, 0, dtype=torch.float64), RowsOperator([part_nP]).squared_norms())


def _joined(sums: ShardSums | None, more: ShardSums) -> ShardSums:
    """In the order of the shards, as a curvature adds them up, and in the place of the first."""
    if sums is None:
        return more
    return ShardSums(sums.matrix_DD.add_(more.matrix_DD), torch.cat([sums.squared_norm_n, more.squared_norm_n]))


class _Fresh(Sequence[Tensor]):
    """Shards that are made each time they are looked at."""

    def __init__(self, of: Pass, columns: slice = slice(None)) -> None:
        self._of, self._columns = of, columns

    def __len__(self) -> int:
        return len(self._of.spans)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._of.compute(self._of.spans[index]).tensors["grad"][:, self._columns]
