"""The exact solution by a Cholesky factor in float64, of the smaller of two equivalent systems.

For ``C = G^T G / N`` with fewer rows than columns the Woodbury identity moves the work to the ``N x N`` Gram matrix:
``(C + lambda I)^-1 v = (v - G^T (G G^T + N lambda I)^-1 G v) / lambda``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ascribe.errors import LimitExceeded
from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator, RowsOperator
from worker.saved import Saved
from worker.solvers.base import Reusable, Stats, require
from worker.solvers.woodbury import dense_system, few_rows, solve_through, system_size, times_rows


@dataclass(frozen=True)
class CholeskyState:
    """``factor`` is the lower factor of ``A``, ``[P, P]``, or where ``rows`` is set of ``G G^T + N lambda I``."""

    operator: Damped
    rows: RowsOperator | None
    factor: Tensor | None
    """``None`` where the matrix turned out not to be positive definite."""


@dataclass(frozen=True)
class Cholesky(Reusable[CholeskyState]):
    """Takes a :class:`DenseOperator` or a :class:`RowsOperator`.

    ``max_size`` bounds the side of the factored matrix; the default's factor is 2 GiB. ``tolerance`` is where rounding
    may leave the residual: measured 1e-13 and less at a condition of 1e6, after one step of refinement.
    """

    keeps: ClassVar[str] = "the factor"

    max_size: int = 16384
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise ValueError("max_size must be at least 1")
        if not 0 < self.tolerance < 1:
            raise ValueError("tolerance must lie between 0 and 1")

    def check(self, operator: Damped) -> None:
        """See :meth:`Solver.check`.

        Raises:
            LimitExceeded: if the smaller matrix is larger than ``max_size``.
        """
        size = system_size(operator)
        if size > self.max_size:
            raise LimitExceeded(
                f"cholesky would factor a matrix of {size} x {size}; its limit is {self.max_size}. "
                "Use fewer training rows, or a solver that factors nothing."
            )

    def init(self, operator: Damped) -> CholeskyState:
        self.check(operator)
        system = dense_system(operator)
        matrix_PP = require(system, DenseOperator).matrix_PP
        return CholeskyState(operator, few_rows(operator), _factor(matrix_PP, system.damping))

    def save(self, state: CholeskyState) -> Saved:
        assert state.factor is not None, "a state without a factor is of no use to anyone"
        return Saved({"transposed_factor": state.factor.mT})

    def load(self, operator: Damped, saved: Saved) -> CholeskyState:
        self.check(operator)
        return CholeskyState(operator, few_rows(operator), saved.tensor("transposed_factor").mT)

    def compute(self, state: CholeskyState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        """Solve, then correct once with the residual: ``x <- x + A^-1 (v - A x)``."""
        bound = state.operator.condition_bound()
        if state.factor is None:
            nothing = Stats(0, 0, condition_bound=None, precision="float64")
            return torch.full_like(rhs_PK, torch.nan), SolveStatus.NOT_POSITIVE_DEFINITE, nothing
        x_PK = _apply_inverse(state, state.factor, rhs_PK)
        x_PK = x_PK + _apply_inverse(state, state.factor, rhs_PK - state.operator.matmul(x_PK))
        return x_PK, SolveStatus.CONVERGED, Stats(1, 1, condition_bound=bound, precision="float64")

    def quadratic(self, state: CholeskyState, rhs_PK: Tensor) -> Tensor:
        """``||L^-1 v||^2``, or through the Gram factor ``(||v||^2 - ||L^-1 G v||^2) / lambda``: half a solve."""
        if state.factor is None:
            return torch.full_like(rhs_PK[0], torch.nan)
        if state.rows is None:
            return _half_solve(state.factor, rhs_PK)
        inner_K = _half_solve(state.factor, times_rows(state.rows, rhs_PK))
        return (rhs_PK.square().sum(dim=0) - inner_K) / state.operator.damping


def _factor(matrix: Tensor, shift: float) -> Tensor | None:
    """The lower Cholesky factor of ``matrix + shift I``, or ``None`` if that is not positive definite."""
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    factor, info = torch.linalg.cholesky_ex(shifted)
    # Column-major, as LAPACK wants it and as a factor that was read back is: other layouts take other kernels.
    return factor.mT.contiguous().mT if int(info) == 0 else None


def _apply_inverse(state: CholeskyState, factor: Tensor, rhs_PK: Tensor) -> Tensor:
    return solve_through(state.operator, lambda rhs: torch.cholesky_solve(rhs, factor), rhs_PK)


def _half_solve(factor: Tensor, rhs: Tensor) -> Tensor:
    half: Tensor = torch.linalg.solve_triangular(factor, rhs, upper=False)
    return half.square().sum(dim=0)
