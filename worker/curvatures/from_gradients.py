"""The curvatures that are sums over the cached gradients of the train rows' loss, a block a tensor."""

from __future__ import annotations

from collections.abc import Sequence

from ascribe.sources.checkpoints import BlockShape
from worker.curvature.block import CurvatureBlock, CurvatureKind, build_block, load_block, save_block
from worker.curvatures.base import Curvatures, tensor_blocks
from worker.gradients.cache import Gradients
from worker.saved import Saved


class FromGradients(Curvatures):
    """GFIM, empirical Fisher, and the identity."""

    def __init__(self, kind: CurvatureKind, shapes: Sequence[BlockShape], train: Gradients) -> None:
        self.blocks = tensor_blocks(shapes)
        self.key = {"kind": kind}
        self._kind, self._train = kind, train

    def build(self, index: int) -> CurvatureBlock:
        shape, columns = self.blocks[index].shape, self.blocks[index].columns
        return build_block(shape.name, self._kind, self._train.block(columns), shape.rank, shape.long_side)

    def save(self, block: CurvatureBlock) -> Saved:
        return save_block(block)

    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        shape, columns = self.blocks[index].shape, self.blocks[index].columns
        return load_block(shape.name, self._kind, self._train.block(columns), shape.rank, shape.long_side, saved)
