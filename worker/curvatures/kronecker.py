"""K-FAC and EK-FAC, a block a tensor, from passes with labels that the model draws itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from ascribe.sources.checkpoints import BlockShape
from worker.curvature.block import CurvatureBlock, mean_squared_entry
from worker.curvature.ekfac import ekfac
from worker.curvature.kfac import kfac
from worker.curvatures.base import Curvatures, Passes, tensor_blocks
from worker.eigen_operators import EigenOperator
from worker.gradients.cache import Gradients
from worker.gradients.cotangents import OfSampledLabel
from worker.gradients.factors import KroneckerFactors
from worker.saved import Saved


class Kronecker(Curvatures):
    """One pass for the factors; EK-FAC's eigenvalues take the per-example gradients of the same drawn labels."""

    def __init__(
        self,
        kind: Literal["kfac", "ekfac"],
        shapes: Sequence[BlockShape],
        train: Gradients,
        passes: Passes,
        seed: int,
    ) -> None:
        self.blocks = tensor_blocks(shapes)
        self.key = {"kind": kind, "seed": seed}
        self._kind, self._train, self._passes, self._of = kind, train, passes, OfSampledLabel(seed)

    @cached_property
    def _factors(self) -> list[KroneckerFactors]:
        return self._passes.factors([self._of])

    @cached_property
    def _sampled(self) -> Gradients:
        return self._passes.gradients(self._of)

    def build(self, index: int) -> CurvatureBlock:
        block = self.blocks[index]
        operator = kfac(block.shape.name, self._factors[index])
        if self._kind == "ekfac":
            operator = ekfac(operator, self._sampled.block(block.columns), self._passes.examples)
        return self._block(index, operator, mean_squared_entry(block.shape.name, self._train.block(block.columns)))

    def save(self, block: CurvatureBlock) -> Saved:
        assert isinstance(block.operator, EigenOperator)
        return Saved(block.operator.save().tensors, {"mean_squared_entry": block.mean_squared_entry})

    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        return self._block(index, EigenOperator.load(saved), float(saved.facts["mean_squared_entry"]))

    def _block(self, index: int, operator: EigenOperator, mean_squared: float) -> CurvatureBlock:
        return CurvatureBlock(self.blocks[index].shape.name, operator, 1, operator.size, mean_squared)
