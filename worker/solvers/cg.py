"""Conjugate gradients for many right-hand sides at once, preconditioned by a Nystrom sketch.

Every column runs a recurrence of its own; what the columns share is the product with ``A``, which is where the time
goes: one pass over the rows, or one forward and backward of the model, serves all. A true block method would also
share their search directions, but breaks down as columns converge or depend on one another, and then a column's
result hangs on what stands beside it. Here a batch equals a loop, and a column that has converged leaves the product.

The recurrence's own residual drifts from the true one, so the true one is formed whenever all columns seem to be
done, and those that are not go on with a correction.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from ascribe.planning.iterations import cg_iterations
from ascribe.status import SolveStatus
from worker.operators import Damped
from worker.saved import Saved
from worker.solvers.base import Reusable, Stats
from worker.solvers.nystrom import Sketch, Sketcher
from worker.ticks import tick

_FIRST_RANK = 8
_MAX_RANK = 512
_SKETCH_BYTES = 256 * 2**20
# Sketched eigenvalues below this many times the damping leave a condition of ten: no more is to be had.
_ENOUGH = 10
# The recurrence aims this far below the tolerance, for what it drifts.
_MARGIN = 0.9
_NO_SKETCH = "the curvature is not positive semi-definite: no preconditioner was used"
_FLOOR = "rounding keeps the residual above the tolerance at this condition"


@dataclass(frozen=True)
class CgPlan:
    """What the steps will run on."""

    rank: int
    """Columns of the sketch; 0 for none."""
    condition: float
    """A bound, with the preconditioner."""
    predicted_iterations: int
    """From the bounds alone, see :func:`cg_iterations`: most spectra need fewer."""


@dataclass(frozen=True)
class CgState:
    operator: Damped
    sketch: Sketch | None
    plan: CgPlan
    notes: tuple[str, ...] = ()

    def precondition(self, r_PK: Tensor) -> Tensor:
        return r_PK if self.sketch is None else self.sketch.precondition(r_PK, self.operator.damping)


@dataclass(frozen=True)
class Cg(Reusable[CgState]):
    """Takes any positive definite operator. ``rank`` is the sketch's: ``None`` chooses, 0 leaves it out."""

    keeps: ClassVar[str] = "the preconditioner; the iteration runs anew for every right-hand side"

    tolerance: float = 1e-6
    max_iterations: int = 1000
    rank: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise ValueError("tolerance must lie between 0 and 1")
        if self.max_iterations < 1:
            raise ValueError("max_iterations must be at least 1")
        if self.rank is not None and self.rank < 0:
            raise ValueError("rank must not be negative")

    def check(self, operator: Damped) -> None:
        """See :meth:`Solver.check`.

        Raises:
            ValueError: if the damping is zero: nothing then bounds the steps.
        """
        if operator.damping == 0:
            raise ValueError("conjugate gradients need a damping above zero")

    def init(self, operator: Damped) -> CgState:
        """The sketch: one product for each doubling of its rank, starting from 8."""
        self.check(operator)
        sketcher = Sketcher(operator.operator, Generator().manual_seed(self.seed))
        sketch, plan = None, self._plan(operator, None)
        while columns := self._columns_to_add(operator, sketch, plan):
            tick()
            sketcher.widen(columns)
            sketch = sketcher.sketch()
            if sketch is None:
                return CgState(operator, None, self._plan(operator, None), (_NO_SKETCH,))
            plan = self._plan(operator, sketch)
        return CgState(operator, sketch, plan)

    def _columns_to_add(self, operator: Damped, sketch: Sketch | None, plan: CgPlan) -> int:
        """Doubling costs as many products with a column as there are columns: worth it while more are left to save.

        The bound promises about twice what most spectra take.
        """
        if self.rank is not None:
            return min(self.rank, operator.size) - plan.rank
        limit = min(operator.size, _MAX_RANK, _SKETCH_BYTES // (8 * operator.size))
        wanted = max(_FIRST_RANK, plan.rank)
        enough = sketch is not None and sketch.smallest <= _ENOUGH * operator.damping
        return 0 if enough or plan.predicted_iterations <= 2 * wanted else min(wanted, limit - plan.rank)

    def _plan(self, operator: Damped, sketch: Sketch | None) -> CgPlan:
        damping = operator.damping
        if sketch is None:
            rank, floor, tail, condition = 0, 1.0, operator.operator.trace() / damping, operator.condition_bound()
        else:
            rank = len(sketch.value_R)
            floor = 1 + sketch.smallest / damping
            tail = max(0.0, operator.operator.trace() - float(sketch.value_R.sum())) / damping
            condition = floor + tail
        iterations = cg_iterations(
            condition=condition, tail=tail, size=operator.size, tolerance=self.tolerance, floor=floor
        )
        return CgPlan(rank, condition, iterations)

    def save(self, state: CgState) -> Saved:
        facts = {"plan": asdict(state.plan), "notes": list(state.notes)}
        if state.sketch is None:
            return Saved(facts=facts)
        return Saved({"basis_PR": state.sketch.basis_PR, "value_R": state.sketch.value_R}, facts)

    def load(self, operator: Damped, saved: Saved) -> CgState:
        self.check(operator)
        sketch = Sketch(saved.tensor("basis_PR"), saved.tensor("value_R")) if saved.tensors else None
        return CgState(operator, sketch, CgPlan(**saved.facts["plan"]), tuple(saved.facts["notes"]))

    def compute(self, state: CgState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        """Correct until every column has converged, ``A`` shows itself indefinite, or nothing improves any more."""
        run = _Run(state, rhs_PK, self.tolerance)
        while run.live_K.numel() and run.positive and run.iterations < self.max_iterations:
            run.correct(self.max_iterations - run.iterations)
        stats = Stats(
            iterations=run.iterations,
            products=run.products,
            condition_bound=state.operator.condition_bound(),
            precision="float64",
            plan=asdict(state.plan),
            notes=state.notes + ((_FLOOR,) if run.stagnant else ()),
        )
        status = SolveStatus.CONVERGED if run.positive else SolveStatus.NOT_POSITIVE_DEFINITE
        return run.x_PK, status, stats


class _Run:
    """One solve: ``live_K`` are the columns whose true residual is still too large, ``r_PK`` those residuals."""

    def __init__(self, state: CgState, rhs_PK: Tensor, tolerance: float) -> None:
        self._state, self._rhs_PK = state, rhs_PK
        self._target_K = tolerance * rhs_PK.norm(dim=0)
        self.x_PK = torch.zeros_like(rhs_PK)
        self.iterations = self.products = 0
        self.positive, self.stagnant = True, False
        self.live_K = rhs_PK.norm(dim=0).nonzero()[:, 0]
        self._r_PK = rhs_PK[:, self.live_K]

    def correct(self, steps: int) -> None:
        """``x <- x + d`` with ``A d = r`` in the live columns; then measure, and drop who has converged or stays."""
        live_K = self.live_K
        before_K = self._r_PK.norm(dim=0)
        self.x_PK[:, live_K] += self._correction(self._r_PK, _MARGIN * self._target_K[live_K], steps)
        self._r_PK = self._rhs_PK[:, live_K] - self._state.operator.matmul(self.x_PK[:, live_K])
        self.products += 1
        norm_K = self._r_PK.norm(dim=0)
        missed_K = norm_K > self._target_K[live_K]
        falling_K = norm_K < before_K / 2
        self.stagnant |= bool((missed_K & ~falling_K).any())
        self.live_K, self._r_PK = live_K[missed_K & falling_K], self._r_PK[:, missed_K & falling_K]

    def _correction(self, r_PK: Tensor, target_K: Tensor, steps: int) -> Tensor:
        """Preconditioned conjugate gradients from zero (Golub & Van Loan, algorithm 11.5.1), a column at a time."""
        operator, precondition = self._state.operator, self._state.precondition
        done_PK = torch.zeros_like(r_PK)
        going_K = torch.arange(r_PK.shape[1], device=r_PK.device)  # what follows is of these columns alone
        d_PK = torch.zeros_like(r_PK)
        p_PK = z_PK = precondition(r_PK)
        rho_K = (r_PK * z_PK).sum(dim=0)
        for _ in range(steps):
            tick()
            q_PK = operator.matmul(p_PK)
            self.products += 1
            curvature_K = (p_PK * q_PK).sum(dim=0)
            if bool((curvature_K <= 0).any()):
                self.positive = False
                break
            self.iterations += 1
            alpha_K = rho_K / curvature_K
            d_PK.addcmul_(alpha_K, p_PK)
            r_PK = torch.addcmul(r_PK, -alpha_K, q_PK)
            keep_K = r_PK.norm(dim=0) > target_K  # a column of NaN leaves too: its residual will tell
            if not bool(keep_K.all()):
                done_PK[:, going_K] = d_PK
                going_K, target_K, rho_K = going_K[keep_K], target_K[keep_K], rho_K[keep_K]
                d_PK, r_PK, p_PK = d_PK[:, keep_K], r_PK[:, keep_K], p_PK[:, keep_K]
                if going_K.numel() == 0:
                    return done_PK
            z_PK = precondition(r_PK)
            old_K, rho_K = rho_K, (r_PK * z_PK).sum(dim=0)
            p_PK = torch.addcmul(z_PK, rho_K / old_K, p_PK)
        done_PK[:, going_K] = d_PK
        return done_PK
