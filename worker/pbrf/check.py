"""How much the validation losses change when the proximal Bregman objective is optimised with a train row's weight.

The score of train row z for validation row q is ``-(L(q, theta(eps)) - L(q, theta(-eps))) / (2 eps)``: positive where
up-weighting z lowers the loss of q, and up to the response's curvature what ``g_q^T (G + damping I)^-1 g_z`` predicts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from ascribe.status import SolveStatus
from worker.data import Batch
from worker.operators import Damped, LinearOperator
from worker.pbrf.curvature import gauss_newton_rows, smaller_form
from worker.pbrf.objective import Objective, count_rows
from worker.pbrf.optimise import Minimum, minimise
from worker.solvers.cholesky import Cholesky

TOLERANCE = 1e-8
"""The relative gradient at which an optimisation has converged."""
LINEAR = 1e-2
"""The largest nonlinearity of a response that counts as linear; the central difference is off by about its square."""
_REACH = 1e-4
"""The first weight moves the parameters so far in the norm of ``G + damping I``: losses move in their fourth digit."""
_STRIDE = 1e-3
"""And no further than this times the length of the parameters: where the damping is small the other says little."""
_TRIALS = 4


@dataclass(frozen=True, slots=True)
class RowResponse:
    """One train row's differences, per unit of weight, and how far to believe them.

    Attributes:
        difference_Q: float64; positive = up-weighting the row lowers the validation row's loss.
        epsilon: the weight, given both signs.
        nonlinearity: ``||d+ - d-|| / ||d+ + d-||`` of the two one-sided differences.
        relative_gradient: ``||grad f|| / ||grad f(theta_s)||`` where the worse of the two optimisations ended.
        iterations: of both.
        converged: whether both reached the tolerance.
    """

    row: int
    difference_Q: Tensor
    epsilon: float
    nonlinearity: float
    relative_gradient: float
    iterations: int
    converged: bool

    @property
    def linear(self) -> bool:
        return self.nonlinearity <= LINEAR

    @property
    def trusted(self) -> bool:
        """Both optimisations converged and the response is linear in the weight."""
        return self.converged and self.linear


@dataclass(frozen=True, slots=True)
class PbrfResult:
    responses: tuple[RowResponse, ...]
    damping: float
    seconds: float

    @property
    def differences(self) -> Tensor:
        """``difference_ZQ`` float64, one row a chosen train row."""
        return torch.stack([response.difference_Q for response in self.responses])

    @property
    def doubtful(self) -> tuple[RowResponse, ...]:
        """The rows that did not converge, or whose response is not linear."""
        return tuple(response for response in self.responses if not response.trusted)


class Pbrf:
    """The response to any train row; what does not depend on the row is done once.

    ``curvature`` is the Gauss-Newton Hessian at ``theta_s``, computed here where it is not given. It speeds the
    optimiser up and sets the first weight; where the optimiser ends is the objective's business alone.

    Raises:
        ValueError: the damping is not positive, or a dataset has no rows or not every one of them once.
        UnsupportedModel: a block is not the weight or bias of a Linear layer of the model.
        LimitExceeded: both the parameters and the rows times classes are too many to factor.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[BlockShape],
        train: Sequence[Batch],
        validation: Sequence[Batch],
        *,
        damping: float,
        curvature: LinearOperator | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        count_rows(validation)
        self._objective = Objective(model, blocks, train, damping=damping)
        self._validation = validation
        self._tolerance = tolerance
        if curvature is None:
            curvature = smaller_form(gauss_newton_rows(model, blocks, train))
        self._solver = Cholesky()
        self._state = self._solver.init(Damped(curvature, damping))
        self._start_loss_Q = self._objective.losses(self._objective.start_P, validation)

    @property
    def rows(self) -> int:
        """Train rows there are."""
        return self._objective.rows

    def respond(self, row: int, epsilon: float | None = None) -> RowResponse:
        """The response to ``row`` from a weight of ``epsilon`` and of ``-epsilon``.

        Without ``epsilon`` the weight is chosen: one that moves the parameters by 1e-4 in the norm of the objective
        or by a thousandth of their length, where rounding is far away, and less where the response is not linear.

        Raises:
            ValueError: there is no such row, or ``epsilon`` is not positive.
        """
        if not 0 <= row < self.rows:
            raise ValueError(f"there is no train row {row}: rows are numbered from 0 to {self.rows - 1}")
        if epsilon is not None:
            if not epsilon > 0:
                raise ValueError("epsilon must be positive: both signs are tried")
            return self._central(row, epsilon)
        response = self._central(row, self._first_weight(row))
        for _ in range(_TRIALS - 1):
            if response.linear:
                break
            # The nonlinearity is proportional to the weight once that is small.
            response = self._central(row, response.epsilon * max(0.01, min(0.5, LINEAR / response.nonlinearity / 2)))
        return response

    def _first_weight(self, row: int) -> float:
        start_P = self._objective.start_P
        grad_P = self._objective.gradient(start_P, row, 1.0)
        move_P = self._inverse(grad_P)
        length = math.sqrt(float(grad_P @ move_P))
        if length == 0.0:
            return 1.0  # a row without a gradient moves nothing
        return min(_REACH / length, _STRIDE * (1 + float(start_P.norm())) / float(move_P.norm()))

    def _central(self, row: int, epsilon: float) -> RowResponse:
        up, down = self._minimum(row, epsilon), self._minimum(row, -epsilon)
        up_Q = (self._start_loss_Q - self._objective.losses(up.point_P, self._validation)) / epsilon
        down_Q = (self._objective.losses(down.point_P, self._validation) - self._start_loss_Q) / epsilon
        size = float((up_Q + down_Q).norm())
        return RowResponse(
            row=row,
            difference_Q=(up_Q + down_Q) / 2,
            epsilon=epsilon,
            nonlinearity=float((up_Q - down_Q).norm()) / size if size > 0 else 0.0,
            relative_gradient=max(up.relative_gradient, down.relative_gradient),
            iterations=up.iterations + down.iterations,
            converged=up.converged and down.converged,
        )

    def _minimum(self, row: int, weight: float) -> Minimum:
        objective = self._objective
        return minimise(
            lambda theta_P: objective.gradient(theta_P, row, weight),
            objective.start_P,
            self._inverse,
            tolerance=self._tolerance,
        )

    def _inverse(self, v_P: Tensor) -> Tensor:
        x_PK, status, _ = self._solver.compute(self._state, v_P[:, None])
        assert status is SolveStatus.CONVERGED, "a second moment plus a positive damping has a Cholesky factor"
        return x_PK[:, 0]


def pbrf(
    model: nn.Module,
    blocks: Sequence[BlockShape],
    train: Sequence[Batch],
    rows: Sequence[int],
    validation: Sequence[Batch],
    *,
    damping: float,
    epsilon: float | None = None,
    tolerance: float = TOLERANCE,
) -> PbrfResult:
    """The responses of all validation rows to each of the train rows ``rows``. Same arguments, same bits, on a CPU.

    Args:
        model: as loaded, of any dtype; it is copied to float64. Called as ``model(**batch.inputs).logits``.
        blocks: the parameters that move, of Linear layers; the others stay.
        train: batches of the whole train set, positions counted from its first row.
        rows: places of train rows.
        validation: batches of the whole validation set.
        damping: lambda, positive; the same for all parameters.
        epsilon: the weight, or None to have it chosen for each row, see :meth:`Pbrf.respond`.
        tolerance: the relative gradient that counts as converged.

    Raises:
        ValueError: no rows, a row that is not there, a damping or an epsilon that is not positive, incomplete batches.
        UnsupportedModel, LimitExceeded: see :class:`Pbrf`.
    """
    started = time.perf_counter()
    if not rows:
        raise ValueError("name at least one train row")
    prepared = Pbrf(model, blocks, train, validation, damping=damping, tolerance=tolerance)
    responses = tuple(prepared.respond(row, epsilon) for row in rows)
    return PbrfResult(responses, damping, time.perf_counter() - started)
