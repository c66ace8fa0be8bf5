"""What the Schulz steps are given: the dense matrix behind an operator, an interval for its spectrum, and how close."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ascribe.planning.schulz_degrees import start_angle
from worker.operators import Damped, DenseOperator
from worker.solvers.base import require
from worker.solvers.woodbury import dense_system, few_rows

_EPSILON = 2.0**-52


@dataclass(frozen=True)
class Problem:
    """``A = C + lower I``, the smaller system behind ``operator``, with its spectrum in ``[lower, upper]``."""

    operator: Damped
    matrix_PP: Tensor
    lower: float
    upper: float
    amplification: float
    """``||I - A X||`` of the operator's system is at most so many times that of this one."""

    @classmethod
    def of(cls, operator: Damped) -> Problem:
        system = dense_system(operator)
        matrix_PP = require(system, DenseOperator).matrix_PP
        lower, upper = system.damping, system.upper_bound()
        # Through few rows the residual is G^T (I - A X) G / (N lambda), A = G G^T + N lambda I.
        amplification = 1.0 if few_rows(operator) is None else max(1.0, upper / lower - 1)
        return cls(operator, matrix_PP, lower, upper, amplification)

    @property
    def size(self) -> int:
        return len(self.matrix_PP)

    @property
    def condition(self) -> float:
        return self.upper / self.lower

    @property
    def angle(self) -> float:
        return start_angle(self.condition)

    @property
    def is_finite(self) -> bool:
        return bool(self.matrix_PP.isfinite().all())

    def damped(self) -> Tensor:
        """``A`` written out, ``[P, P]``."""
        a_PP = self.matrix_PP.clone()
        a_PP.diagonal().add_(self.lower)
        return a_PP

    def tolerance(self, asked: float) -> float:
        """For ``||I - A X||`` of this system, so that the operator's is at most ``asked``, as far as float64 goes."""
        return min(max(asked / self.amplification, _EPSILON * self.condition), 0.5)

    def frobenius_tolerance(self, asked: float) -> float:
        """The largest ``||I - A X||_F`` that :meth:`tolerance` allows."""
        return math.sqrt(self.size) * self.tolerance(asked)
