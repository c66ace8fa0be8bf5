"""How a solve ended, with advice in words. Standard library only: the numerics speak it too."""

from __future__ import annotations

from enum import StrEnum


class SolveStatus(StrEnum):
    """Outcome of one block's solve, ordered from best to worst by :attr:`severity`."""

    CONVERGED = "converged"
    APPROXIMATE = "approximate"
    MAX_ITERATIONS = "max_iterations"
    NOT_POSITIVE_DEFINITE = "not_positive_definite"
    DIVERGED = "diverged"
    NON_FINITE = "non_finite"

    @property
    def advice(self) -> str:
        return _ADVICE[self]

    @property
    def severity(self) -> int:
        return list(SolveStatus).index(self)


_ADVICE = {
    SolveStatus.CONVERGED: "The measured residual is within the tolerance.",
    SolveStatus.APPROXIMATE: "A closed-form approximation; its residual is measured against the curvature that was "
    "asked for. For the exact solution use auto, and gauss_newton in place of K-FAC and EK-FAC.",
    SolveStatus.MAX_ITERATIONS: "The steps ended before the tolerance was reached: read the scores as approximate, "
    "allow more steps, or raise the damping.",
    SolveStatus.NOT_POSITIVE_DEFINITE: "The damped curvature is not positive definite: raise the damping.",
    SolveStatus.DIVERGED: "The iteration grew instead of shrinking: lower the step size, enlarge the batch, "
    "or leave both on auto.",
    SolveStatus.NON_FINITE: "The solve produced values that are not finite: check the gradients, raise the damping.",
}
