"""The Gauss-Newton Hessian of all selected parameters, from cached rows or as products with the model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from ascribe.sources.checkpoints import BlockShape
from worker.curvature.block import CurvatureBlock, mean_squared_entry
from worker.curvature.gauss_newton import GaussNewtonProducts, gauss_newton_rows
from worker.curvatures.base import Curvatures, Passes, whole
from worker.gradients.cache import Gradients
from worker.gradients.cotangents import OfGaussNewton
from worker.operators import RowsOperator, SampledOperator
from worker.saved import Saved


class GaussNewtonRows(Curvatures):
    """``classes - 1`` cached rows an example, whose outer products sum to its part of the matrix."""

    def __init__(self, shapes: Sequence[BlockShape], train: Gradients, passes: Passes) -> None:
        self.blocks = whole(shapes)
        self.key = {"kind": "gauss_newton", "form": "rows"}
        self._train, self._passes = train, passes

    @cached_property
    def _components(self) -> list[Sequence[Tensor]]:
        return [self._passes.gradients(OfGaussNewton(k)).shards for k in range(self._passes.classes - 1)]

    def build(self, index: int) -> CurvatureBlock:
        name = self.blocks[index].shape.name
        return _block(name, gauss_newton_rows(self._components), mean_squared_entry(name, self._train.shards))

    def save(self, block: CurvatureBlock) -> Saved:
        assert isinstance(block.operator, RowsOperator)
        facts = {"mean_squared_entry": block.mean_squared_entry}
        return Saved({"squared_norm_N": block.operator.squared_norms()}, facts)

    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        operator = gauss_newton_rows(self._components, saved.tensor("squared_norm_N"))
        return _block(self.blocks[index].shape.name, operator, float(saved.facts["mean_squared_entry"]))


class GaussNewtonModel(Curvatures):
    """Nothing is cached: every product runs the model over the train rows, forward and back."""

    def __init__(self, shapes: Sequence[BlockShape], train: Gradients, passes: Passes) -> None:
        self.blocks = whole(shapes)
        self.key = {"kind": "gauss_newton", "form": "products"}
        self._shapes, self._train, self._passes = shapes, train, passes

    @cached_property
    def _operator(self) -> GaussNewtonProducts:
        loaded, batches = self._passes.batches()
        return GaussNewtonProducts(loaded.model, batches, self._shapes, loaded.fit)

    def build(self, index: int) -> CurvatureBlock:
        name = self.blocks[index].shape.name
        return _block(name, self._operator, mean_squared_entry(name, self._train.shards))

    def save(self, block: CurvatureBlock) -> Saved:
        return Saved(facts={"mean_squared_entry": block.mean_squared_entry})

    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        name = self.blocks[index].shape.name
        return _block(name, self._operator, float(saved.facts["mean_squared_entry"]))

    def notes(self) -> tuple[str, ...]:
        return self._operator.notes


def _block(name: str, operator: SampledOperator, mean_squared: float) -> CurvatureBlock:
    return CurvatureBlock(name, operator, rank=1, long_side=operator.size, mean_squared_entry=mean_squared)
