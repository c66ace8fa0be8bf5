"""The Gauss-Newton Hessian with EK-FAC beside it, for a solver that is preconditioned."""

from __future__ import annotations

from dataclasses import replace

from worker.curvature.block import CurvatureBlock
from worker.curvatures.base import Curvatures
from worker.curvatures.kronecker import Kronecker
from worker.eigen_operators import EigenOperator, PreconditionedOperator
from worker.operators import SampledOperator
from worker.saved import Saved


class Preconditioned(Curvatures):
    """One block: the matrix of ``whole``, and the blocks of ``parts`` as its approximation."""

    def __init__(self, whole: Curvatures, parts: Kronecker) -> None:
        self.blocks = whole.blocks
        self.key = {**whole.key, "preconditioner": dict(parts.key)}
        self._whole, self._parts = whole, parts

    def build(self, index: int) -> CurvatureBlock:
        parts = [self._parts.build(part) for part in range(len(self._parts.blocks))]
        return self._join(self._whole.build(index), parts)

    def save(self, block: CurvatureBlock) -> Saved:
        assert isinstance(block.operator, PreconditionedOperator)
        whole = self._whole.save(replace(block, operator=block.operator.examples))
        tensors = dict(whole.tensors)
        for place, part in enumerate(block.operator.blocks):
            tensors |= {f"{place}.{name}": tensor for name, tensor in part.save().tensors.items()}
        return Saved(tensors, whole.facts)

    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        parts = []
        for place in range(len(self._parts.blocks)):
            prefix = f"{place}."
            own = {name.removeprefix(prefix): saved.tensors[name] for name in saved.tensors if name.startswith(prefix)}
            parts.append(EigenOperator.load(Saved(own)))
        whole = self._whole.load(index, saved)
        assert isinstance(whole.operator, SampledOperator)
        return replace(whole, operator=PreconditionedOperator(whole.operator, parts))

    def notes(self) -> tuple[str, ...]:
        return self._whole.notes()

    @staticmethod
    def _join(whole: CurvatureBlock, parts: list[CurvatureBlock]) -> CurvatureBlock:
        assert isinstance(whole.operator, SampledOperator)
        eigen = [part.operator for part in parts if isinstance(part.operator, EigenOperator)]
        return replace(whole, operator=PreconditionedOperator(whole.operator, eigen))
