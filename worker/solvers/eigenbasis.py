"""The exact inverse of a matrix whose eigenvectors are known: ``(C + lambda I)^-1 v = Q (value + lambda)^-1 Q^T v``.

Exact for the matrix it is given, K-FAC or EK-FAC, which is itself an approximation: the status says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ascribe.status import SolveStatus
from worker.eigen_operators import EigenOperator
from worker.operators import Damped
from worker.solvers.base import Solver, Stats, require

_NOTE = "The residual is against the Kronecker-factored matrix, not against the Fisher matrix that it approximates."


@dataclass(frozen=True)
class EigenbasisState:
    eigen: EigenOperator
    operator: Damped


@dataclass(frozen=True)
class Eigenbasis(Solver[EigenbasisState]):
    """Closed form on an :class:`EigenOperator`; its status is always ``APPROXIMATE``."""

    @property
    def tolerance(self) -> float:
        return 0.0

    def check(self, operator: Damped) -> None:
        require(operator, EigenOperator)

    def init(self, operator: Damped) -> EigenbasisState:
        return EigenbasisState(require(operator, EigenOperator), operator)

    def compute(self, state: EigenbasisState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        x_PK = state.eigen.inverse_matmul(rhs_PK, state.operator.damping)
        stats = Stats(
            iterations=1,
            products=1,
            condition_bound=state.operator.condition_bound(),
            precision="float64",
            notes=(_NOTE,),
        )
        return x_PK, SolveStatus.APPROXIMATE, stats

    def quadratic(self, state: EigenbasisState, rhs_PK: Tensor) -> Tensor:
        """``sum (Q^T v)^2 / (value + lambda)``: half of the products of ``compute``."""
        square_KRD = state.eigen.coordinates(rhs_PK.T).square()
        return (square_KRD / (state.eigen.value_RD + state.operator.damping)).sum(dim=(1, 2))
