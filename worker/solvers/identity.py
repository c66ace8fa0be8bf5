"""No curvature: ``x = v``, so the scores are plain gradient products (TracIn at one checkpoint, arXiv 2002.08484)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, IdentityOperator
from worker.solvers.base import Solver, Stats, require


@dataclass(frozen=True)
class Identity(Solver[None]):
    """Takes an undamped :class:`IdentityOperator`."""

    @property
    def tolerance(self) -> float:
        return 0.0

    def check(self, operator: Damped) -> None:
        """See :meth:`Solver.check`.

        Raises:
            ValueError: if the operator is damped: a scaled gradient product is not what was asked for.
        """
        require(operator, IdentityOperator)
        if operator.damping != 0.0:
            raise ValueError("the identity takes no damping")

    def init(self, operator: Damped) -> None:
        self.check(operator)

    def compute(self, _state: None, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        return rhs_PK, SolveStatus.CONVERGED, Stats(0, 0, condition_bound=1.0, precision="float64")
