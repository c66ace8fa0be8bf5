"""The Schulz (Newton) iteration ``X <- X (2I - A X)`` for an explicit inverse, done right and as published.

Done right: scaled by the Chebyshev polynomial of degree 2 that is smallest on ``[l, u]``, an interval known to hold
the spectrum, so that ``||I - A X_k|| <= 1 / T_{2^k}((kappa + 1) / (kappa - 1))`` with ``kappa = u / l`` and the number
of steps is known before the first (Pan & Schreiber 1991, section 3). As published: HyperINF (arXiv 2410.05090).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator
from worker.saved import Saved
from worker.solvers.base import Reusable, Stats, require
from worker.ticks import tick

# float32 leaves ||I - A X|| near 1e-8 kappa. Up to here that is well below 1, and the float64 steps that
# follow square it; beyond, they could not start.
_FLOAT32_CONDITION = 1e5
_POLISH_STEPS = 4

_PUBLISHED_START = 5e-5
_PUBLISHED_DAMPING = 1e-3


@dataclass(frozen=True)
class SchulzState:
    """``inverse_PP`` is ``X`` in float64; ``status`` says whether the iteration broke down."""

    operator: Damped
    inverse_PP: Tensor
    status: SolveStatus
    stats: Stats


@dataclass(frozen=True)
class Schulz(Reusable[SchulzState]):
    """Takes a :class:`DenseOperator`.

    ``tolerance`` bounds ``||I - A X||_F``. ``iterations`` is a cap for ``start="chebyshev"``, which needs 7 steps at a
    condition of 1e2 and 13 at 1e6, and the exact number for ``start="published"``, which reproduces the released code
    for comparison: no stop test, float32, and two dampings that are not in the paper's formula.
    """

    keeps: ClassVar[str] = "the inverse"

    tolerance: float = 1e-6
    start: Literal["chebyshev", "published"] = "chebyshev"
    iterations: int = 30

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise ValueError("tolerance must lie between 0 and 1")
        if self.iterations < 1:
            raise ValueError("iterations must be at least 1")

    def check(self, operator: Damped) -> None:
        require(operator, DenseOperator)

    def init(self, operator: Damped) -> SchulzState:
        matrix_PP = require(operator, DenseOperator).matrix_PP
        if self.start == "published":
            return self._published(operator, matrix_PP)
        return self._chebyshev(operator, matrix_PP)

    def _chebyshev(self, operator: Damped, matrix_PP: Tensor) -> SchulzState:
        lower, upper = operator.damping, operator.upper_bound()
        condition = operator.condition_bound()
        dtype = torch.float32 if condition <= _FLOAT32_CONDITION else torch.float64
        planned = chebyshev_steps(condition, self.tolerance)
        steps = min(planned, self.iterations)
        a_PP = _add_diagonal(matrix_PP, operator.damping)
        inverse_PP = _iterate(a_PP.to(dtype), lower, upper, steps).to(torch.float64)

        error_PP = _error(a_PP, inverse_PP)
        error = float(torch.linalg.matrix_norm(error_PP))
        polish = 0
        while self.tolerance < error < 1 and polish < min(_POLISH_STEPS, self.iterations - steps):
            inverse_PP = inverse_PP + inverse_PP @ error_PP
            error_PP = _error(a_PP, inverse_PP)
            error = float(torch.linalg.matrix_norm(error_PP))
            polish += 1

        # The planned steps take care of every eigenvalue in [l, u]: what they leave lies outside, below zero.
        outside = steps == planned and not error < 1
        stats = Stats(
            iterations=steps + polish,
            products=2 * (steps - 1) + 1 + 2 * polish,
            condition_bound=condition,
            precision="float32+float64" if dtype == torch.float32 else "float64",
            inverse_residual_bound=error,
        )
        status = SolveStatus.NOT_POSITIVE_DEFINITE if outside else SolveStatus.CONVERGED
        return SchulzState(operator, inverse_PP, status, stats)

    def _published(self, operator: Damped, matrix_PP: Tensor) -> SchulzState:
        a_PP = _add_diagonal(matrix_PP.to(torch.float32), operator.damping)
        a_PP = _add_diagonal(a_PP, _PUBLISHED_DAMPING)
        identity_PP = torch.eye(operator.size)
        inverse_PP = _PUBLISHED_START * identity_PP
        for _ in range(self.iterations):
            tick()
            inverse_PP = inverse_PP @ (2 * identity_PP - a_PP @ inverse_PP)
        finite = bool(inverse_PP.isfinite().all())
        truncation = 1 / (_PUBLISHED_START * 2.0**self.iterations)
        stats = Stats(
            iterations=self.iterations,
            products=2 * self.iterations,
            condition_bound=operator.condition_bound(),
            precision="float32",
            notes=(
                f"The published start adds two dampings of its own to {operator.damping:.3g}: {_PUBLISHED_DAMPING} in "
                f"the released code, and about {truncation:.2g} by stopping after {self.iterations} steps.",
            ),
        )
        status = SolveStatus.CONVERGED if finite else SolveStatus.DIVERGED
        return SchulzState(operator, inverse_PP.to(torch.float64), status, stats)

    def save(self, state: SchulzState) -> Saved:
        return Saved({"inverse_PP": state.inverse_PP}, {"status": state.status.value, "stats": asdict(state.stats)})

    def load(self, operator: Damped, saved: Saved) -> SchulzState:
        require(operator, DenseOperator)
        stats = dict(saved.facts["stats"])
        stats["notes"] = tuple(stats["notes"])  # JSON has lists only
        return SchulzState(operator, saved.tensor("inverse_PP"), SolveStatus(saved.facts["status"]), Stats(**stats))

    def compute(self, state: SchulzState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        """``X v``, and except for the published start one correction ``x <- x + X (v - A x)``."""
        x_PK = state.inverse_PP @ rhs_PK
        if self.start == "chebyshev":
            x_PK = x_PK + state.inverse_PP @ (rhs_PK - state.operator.matmul(x_PK))
        return x_PK, state.status, state.stats

    def quadratic(self, state: SchulzState, rhs_PK: Tensor) -> Tensor:
        """``v^T X v``, whose relative error is within ``||I - A X||``: no correction is needed."""
        return (rhs_PK * (state.inverse_PP @ rhs_PK)).sum(dim=0)


def chebyshev_steps(condition: float, tolerance: float) -> int:
    """The smallest ``k >= 1`` with ``1 / T_{2^k}((kappa + 1) / (kappa - 1)) <= tolerance``."""
    if condition <= 1:
        return 1
    # T_m(cosh y) = cosh(m y); y from atanh keeps the digits that (kappa + 1) / (kappa - 1) loses near 1.
    y = 2 * math.atanh(1 / math.sqrt(condition))
    return max(1, math.ceil(math.log2(math.acosh(1 / tolerance) / y)))


def _iterate(a_PP: Tensor, lower: float, upper: float, steps: int) -> Tensor:
    """``X`` after ``steps`` scaled steps from ``c I``, ``c = 2 / (l + u)``, in the dtype of ``a_PP``.

    The form ``X (2I - A X)`` corrects its own rounding; making ``X`` symmetric in between would undo that.
    """
    first, *rest = chebyshev_scales(lower, upper, steps)
    c = 2 / (lower + upper)
    identity_PP = torch.eye(len(a_PP), dtype=a_PP.dtype)
    inverse_PP = first * c * (2 * identity_PP - c * a_PP)  # the first step needs no product
    for scale in rest:
        inverse_PP = scale * (inverse_PP @ (2 * identity_PP - a_PP @ inverse_PP))
    return inverse_PP


def chebyshev_scales(lower: float, upper: float, steps: int) -> list[float]:
    """``s = 2 tau^2 / (2 tau^2 - 1)`` and then ``tau <- 2 tau^2 - 1``, from ``tau = (u + l) / (u - l)``."""
    scales = []
    # tau - 1 is kept in place of tau, which rounds to 1 at a large condition number.
    tau_minus_1 = 2 * lower / (upper - lower) if upper > lower else math.inf
    for _ in range(steps):
        tick()
        square_minus_1 = tau_minus_1 * (tau_minus_1 + 2)
        scales.append(1 + 1 / (2 * square_minus_1 + 1))
        tau_minus_1 = 2 * square_minus_1
    return scales


def _error(a_PP: Tensor, inverse_PP: Tensor) -> Tensor:
    """``I - A X``."""
    return _add_diagonal(-(a_PP @ inverse_PP), 1.0)


def _add_diagonal(matrix_PP: Tensor, value: float) -> Tensor:
    shifted_PP = matrix_PP.clone()
    shifted_PP.diagonal().add_(value)
    return shifted_PP
