"""DataInf (Kwon et al. 2024, arXiv 2310.00902, equation 5): the mean of the inverses for the inverse of the mean.

``x = (1/lambda) mean_n[v - g_n (g_n . v) / (lambda + ||g_n||^2)]``: each rank-one term is inverted on its own by
Sherman-Morrison, which is exact for one example and an approximation for more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, RowsOperator
from worker.solvers.base import Solver, Stats, require


@dataclass(frozen=True)
class DataInfState:
    rows: RowsOperator
    operator: Damped


@dataclass(frozen=True)
class DataInf(Solver[DataInfState]):
    """Closed form on a :class:`RowsOperator`, one pass over the rows; its status is always ``APPROXIMATE``."""

    @property
    def tolerance(self) -> float:
        return 0.0

    def check(self, operator: Damped) -> None:
        require(operator, RowsOperator)

    def init(self, operator: Damped) -> DataInfState:
        return DataInfState(require(operator, RowsOperator), operator)

    def compute(self, state: DataInfState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        rows, damping = state.rows, state.operator.damping
        shrink_PK = torch.zeros_like(rhs_PK)
        for slab_nP, weight_n in rows.slabs_with(_weights(state)):
            shrink_PK += slab_nP.T @ (weight_n[:, None] * (slab_nP @ rhs_PK))
        x_PK = (rhs_PK - shrink_PK / rows.count) / damping
        stats = Stats(1, 1, condition_bound=state.operator.condition_bound(), precision="float64")
        return x_PK, SolveStatus.APPROXIMATE, stats

    def quadratic(self, state: DataInfState, rhs_PK: Tensor) -> Tensor:
        """``(1/lambda) mean_n[||v||^2 - (g_n . v)^2 / (lambda + ||g_n||^2)]``: half of the products of ``compute``."""
        rows, damping = state.rows, state.operator.damping
        shrink_K = torch.zeros_like(rhs_PK[0])
        for slab_nP, weight_n in rows.slabs_with(_weights(state)):
            shrink_K += weight_n @ (slab_nP @ rhs_PK).square()
        return (rhs_PK.square().sum(dim=0) - shrink_K / rows.count) / damping


def _weights(state: DataInfState) -> Tensor:
    """``1 / (lambda + ||g_n||^2)``, ``[N]``."""
    return 1 / (state.operator.damping + state.rows.squared_norms())
