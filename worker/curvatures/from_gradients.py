"""The curvatures that are sums over the cached gradients of the train rows' loss, a block a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ascribe.sources.checkpoints import BlockShape
from worker.curvature.block import (
    CurvatureBlock,
    CurvatureKind,
    build_block,
    build_dense_block,
    build_summed_block,
    load_block,
    save_block,
)
from worker.curvature.gfim import ShardSums, is_dense, sum_shard
from worker.curvatures.base import Curvatures, Passes, tensor_blocks
from worker.gradients.cache import Gradients
from worker.saved import Saved
from worker.shards import Pass, Shards, Span


class FromGradients(Curvatures):
    """GFIM, empirical Fisher, and the identity."""

    def __init__(self, kind: CurvatureKind, shapes: Sequence[BlockShape], train: Gradients, passes: Passes) -> None:
        self.blocks = tensor_blocks(shapes)
        self.key = {"kind": kind}
        self._kind, self._train, self._passes = kind, train, passes

    def build(self, index: int) -> CurvatureBlock:
        shape, columns = self.blocks[index].shape, self.blocks[index].columns
        summed = self._passes.take_summed(index)
        if summed is not None:
            return build_summed_block(shape.name, self._kind, summed, shape.rank, shape.long_side)
        if self._is_dense_gfim(shape) and self._sums is not None:
            kept = self._sums
            sums = (_kept_sums(kept, span, index) for span in kept.of.spans)
            return build_dense_block(shape.name, sums, shape.rank, shape.long_side, normalized=self._kind == "gfim")
        return build_block(shape.name, self._kind, self._train.block(columns), shape.rank, shape.long_side)

    @cached_property
    def _sums(self) -> Shards | None:
        return self._passes.sums()

    def _is_dense_gfim(self, shape: BlockShape) -> bool:
        return self._kind in ("gfim", "gfim_unnormalized") and is_dense(self._train.rows, shape.rank, shape.long_side)

    def save(self, block: CurvatureBlock) -> Saved:
        return save_block(block)

    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        shape, columns = self.blocks[index].shape, self.blocks[index].columns
        self._passes.take_summed(index)  # not needed then, and held for nothing
        return load_block(shape.name, self._kind, self._train.block(columns), shape.rank, shape.long_side, saved)


def sums_pass(train: Shards, shapes: Sequence[BlockShape], *, name: str, folder: Path) -> Pass | None:
    """The sums of every shard of the train gradients, for each block of which GFIM is a dense matrix.

    None where they take more room than the gradients: then whoever needs them does better to read those.
    """
    blocks = {
        index: block
        for index, block in enumerate(tensor_blocks(shapes))
        if is_dense(train.rows, block.shape.rank, block.shape.long_side)
    }
    matrix_bytes = sum(8 * block.shape.long_side**2 for block in blocks.values())
    if not blocks or matrix_bytes > train.of.size(train.of.spans[0]):
        return None

    def compute(span: Span) -> Saved:
        grad_nP = train.tensor(span, "grad")
        tensors: dict[str, Tensor] = {}
        for index, block in blocks.items():
            sums = sum_shard(grad_nP[:, block.columns], block.shape.long_side)
            tensors |= {f"{index}.matrix_DD": sums.matrix_DD, f"{index}.squared_norm_n": sums.squared_norm_n}
        return Saved(tensors)

    return Pass(
        name=name,
        what="sums over gradients of the train",
        folder=folder,
        stem="sums",
        spans=train.of.spans,
        parameters=train.of.parameters,
        compute=compute,
        size=lambda span: matrix_bytes + 8 * span.rows * len(blocks),
    )


def _kept_sums(kept: Shards, span: Span, block: int) -> ShardSums:
    return ShardSums(kept.tensor(span, f"{block}.matrix_DD"), kept.tensor(span, f"{block}.squared_norm_n"))
