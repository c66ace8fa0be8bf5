"""The single entry to a linear solve: checks, measures, and only then says how it went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped
from worker.solvers.base import Solver, StateT, Stats


@dataclass(frozen=True)
class Solution(Generic[StateT]):
    """``x_PK`` (float64), how it was found, and how far it is from solving the system."""

    x_PK: Tensor
    status: SolveStatus
    stats: Stats
    relative_residual_K: Tensor
    """``||A x - v|| / ||v||`` of each column, measured in float64; 0 where ``v`` and ``x`` are both zero."""
    state: StateT


def solve(operator: Damped, rhs_PK: Tensor, solver: Solver[StateT], *, state: StateT | None = None) -> Solution[StateT]:
    """Solve ``A x = v`` for every column and measure the result with the full operator in float64.

    The status is ``CONVERGED`` if and only if the largest measured residual is within ``solver.tolerance``; a
    verdict that is worse than slow convergence (``DIVERGED``, ...), and ``APPROXIMATE``, stay as the solver gave them.
    A right-hand side that is not finite ends as ``NON_FINITE`` with an ``x`` of NaN.

    Args:
        operator: ``A = C + damping I``, ``[P, P]``.
        rhs_PK: right-hand sides ``[P, K]``.
        solver: the method.
        state: what ``solver.init(operator)`` returned before, to be used again.

    Raises:
        ValueError: if the right-hand sides do not fit the operator.
        TypeError: if the solver does not take this kind of operator.
    """
    if rhs_PK.ndim != 2 or rhs_PK.shape[0] != operator.size:
        raise ValueError("right-hand sides must be [P, K] with P the size of the operator")
    rhs_PK = rhs_PK.to(torch.float64)
    state = solver.init(operator) if state is None else state
    if not bool(rhs_PK.isfinite().all()):
        nothing = Stats(iterations=0, products=0, condition_bound=None, precision="float64")
        nan_PK = torch.full_like(rhs_PK, torch.nan)
        return Solution(nan_PK, SolveStatus.NON_FINITE, nothing, nan_PK[0], state)
    x_PK, status, stats = solver.compute(state, rhs_PK)
    residual_K = relative_residual(operator, x_PK, rhs_PK)
    return Solution(x_PK, _judge(status, residual_K, solver.tolerance), stats, residual_K, state)


def relative_residual(operator: Damped, x_PK: Tensor, rhs_PK: Tensor) -> Tensor:
    """``||A x - v|| / ||v||`` for each column, ``[K]``; for a zero column, ``||A x||``."""
    error_K: Tensor = (operator.matmul(x_PK) - rhs_PK).norm(dim=0)
    norm_K: Tensor = rhs_PK.norm(dim=0)
    return error_K / norm_K.where(norm_K > 0, torch.ones_like(norm_K))


def _judge(status: SolveStatus, residual_K: Tensor, tolerance: float) -> SolveStatus:
    if status in (SolveStatus.NOT_POSITIVE_DEFINITE, SolveStatus.DIVERGED):
        return status
    if not bool(residual_K.isfinite().all()):
        return SolveStatus.NON_FINITE
    if status is SolveStatus.APPROXIMATE:
        return status
    return SolveStatus.CONVERGED if bool((residual_K <= tolerance).all()) else SolveStatus.MAX_ITERATIONS
