"""What LiSSA and ASTRA share: a preconditioned stochastic iteration whose noise floor sinks with the residual.

``d <- d - step_size M (C_B d + damping d - r)`` from zero, a fresh batch ``B`` each step, solves ``A d = r`` up to a
noise in proportion to ``r``: plain LiSSA ends at a residual of 0.1 to 0.8 where the condition is 100. So now and then,
at every *anchor*, the exact residual ``r = v - A u`` is formed and the iteration goes on with the correction for it.
The floor then sinks with the residual. Written out this is the control variate ``C_B (u - a) + C a`` of SVRG (Johnson &
Zhang 2013) around the anchor's iterate ``a``. ``M`` is whatever resembles ``A^-1``: the identity in LiSSA.

A column stops at the anchor at which its residual and its error are both within the tolerance, or when the plan is
done, by when the residual should be.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, SampledOperator
from worker.solvers.base import Reusable, StateT

# Anchors in the time in which the slowest error shrinks by e: at 1 the noise slows the solve by a third, at 3 the
# exact products do.
ANCHORS_PER_DECAY = 2
# No solution is longer than ||v|| / damping, and no step that contracts lets the residual grow in the norm of M; an
# iterate or a residual ten times as long has run away.
_RUNAWAY = 10.0


@dataclass(frozen=True)
class Schedule:
    """The part of a plan that an iteration follows. An anchor comes every ``anchor_every`` steps."""

    step_size: float
    batch_size: int
    steps: int
    anchor_every: int


@dataclass(frozen=True)
class Stochastic(Reusable[StateT]):
    """The options of a stochastic iteration. What is ``None`` the spectrum decides; what is not is honoured."""

    keeps: ClassVar[str] = "the plan; the iteration runs anew for every right-hand side"

    step_size: float | None = None
    batch_size: int | None = None
    steps: int | None = None
    tolerance: float = 0.01
    max_steps: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.step_size is not None and not (math.isfinite(self.step_size) and self.step_size > 0):
            raise ValueError("step_size must be positive and finite")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        if not 0 < self.tolerance < 1:
            raise ValueError("tolerance must lie between 0 and 1")
        if self.max_steps < 1:
            raise ValueError("max_steps must be at least 1")
        if self.steps is not None and not 1 <= self.steps <= self.max_steps:
            raise ValueError("steps must lie between 1 and max_steps")

    @abstractmethod
    def init(self, operator: Damped) -> StateT:
        """Measure the spectrum and plan; nothing is solved yet.

        Raises:
            TypeError: if the operator is not of a kind that the solver takes.
            PlanExceedsSteps: if the plan needs more than ``max_steps``.
        """


class Outcome(NamedTuple):
    """Of ``steps``, the first after each of ``anchors`` took an exact product and the others a batch."""

    x_PK: Tensor
    status: SolveStatus
    steps: int
    anchors: int

    def products(self, batch_size: int, count: int) -> int:
        """Products with the whole matrix; those with a batch by its share of the ``count`` examples."""
        return self.anchors + math.ceil(max(0, self.steps - self.anchors) * batch_size / count)


@dataclass(frozen=True)
class AnchoredIteration:
    """``examples`` are the operator under ``operator``."""

    operator: Damped
    examples: SampledOperator
    schedule: Schedule
    precondition: Callable[[Tensor], Tensor] = lambda x_PK: x_PK
    """``M x``, ``[P, K]``."""

    def run(self, rhs_PK: Tensor, *, tolerance: float, seed: int) -> Outcome:
        """Iterate in the dtype of ``rhs_PK``; ``tolerance`` is relative, of each column's residual and error.

        The batches depend on the seed alone, so a column's result is its own.
        """
        steps, anchor_every = self.schedule.steps, self.schedule.anchor_every
        generator = Generator().manual_seed(seed)
        x_PK = torch.zeros_like(rhs_PK)
        live_K = torch.arange(rhs_PK.shape[1], device=rhs_PK.device)  # columns still iterated: u, v, r are of these
        u_PK, v_PK = torch.zeros_like(rhs_PK), rhs_PK
        bound_K = torch.full_like(rhs_PK[0], math.inf)
        for anchor, step in enumerate(range(0, steps, anchor_every)):
            r_PK = v_PK - self.operator.matmul(u_PK) if step else v_PK
            x_PK[:, live_K] = u_PK
            keep_K = ~self._converged(u_PK, v_PK, r_PK, tolerance)
            live_K, u_PK, v_PK, r_PK, bound_K = (t[..., keep_K] for t in (live_K, u_PK, v_PK, r_PK, bound_K))
            if len(live_K) == 0:
                return Outcome(x_PK, SolveStatus.CONVERGED, step, anchor)
            drive_PK = self.precondition(r_PK)
            energy_K = (r_PK * drive_PK).sum(dim=0)
            if not bool((energy_K <= bound_K).all()):
                return Outcome(x_PK, SolveStatus.DIVERGED, step, anchor)
            if step == 0:
                bound_K = _RUNAWAY**2 * energy_K
            inner = min(anchor_every, steps - step)
            limit_K = _RUNAWAY / self.operator.damping * v_PK.norm(dim=0)
            d_PK, taken = self._correct(drive_PK, limit_K, inner, generator)
            u_PK = u_PK + d_PK
            if taken < inner:
                x_PK[:, live_K] = u_PK
                return Outcome(x_PK, SolveStatus.DIVERGED, step + taken, anchor + 1)
        x_PK[:, live_K] = u_PK
        return Outcome(x_PK, SolveStatus.MAX_ITERATIONS, steps, math.ceil(steps / anchor_every))

    def _converged(self, u_PK: Tensor, v_PK: Tensor, r_PK: Tensor, tolerance: float) -> Tensor:
        """Which columns are done, ``[K]``.

        The error of ``u`` is at most ``||r|| / damping``. Where ``v`` lies along large eigenvalues ``u`` is short, and
        what a small residual leaves out can be all that tells one example's score from another's.
        """
        scale_K = torch.minimum(v_PK.norm(dim=0), self.operator.damping * u_PK.norm(dim=0))
        done_K: Tensor = r_PK.norm(dim=0) <= tolerance * scale_K
        return done_K

    def _correct(self, drive_PK: Tensor, limit_K: Tensor, steps: int, generator: Generator) -> tuple[Tensor, int]:
        """``A d = r`` from zero, given ``M r``; returns ``d`` and the steps taken, fewer if a column ran away."""
        step_size, batch_size = self.schedule.step_size, self.schedule.batch_size
        d_PK = step_size * drive_PK  # the first step: every product with zero is zero
        for step in range(1, steps + 1):
            if not bool((d_PK.norm(dim=0) <= limit_K).all()):
                return d_PK, step - 1
            if step == steps:
                break
            batch_B = self.examples.draw(batch_size, generator)
            product_PK = torch.add(self.examples.matmul_sampled(d_PK, batch_B), d_PK, alpha=self.operator.damping)
            d_PK.add_(drive_PK, alpha=step_size).sub_(self.precondition(product_PK), alpha=step_size)
        return d_PK, steps
