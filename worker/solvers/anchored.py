"""Preconditioned stochastic iterations whose noise floor sinks with the residual.

``d <- d - step_size M (C_B d + damping d - r)`` from zero, a fresh batch ``B`` each step, solves ``A d = r`` up to a
noise in proportion to ``r``. So now and then, at every *anchor*, the exact residual ``r = v - A u`` is formed, the
iteration goes on with the correction for it, and a column that has converged stops. ``M`` is whatever resembles
``A^-1``. Why this works, and what it has to do with SVRG: :mod:`worker.solvers.lissa`, where ``M`` is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, SampledOperator

# No solution is longer than ||v|| / damping, and no step that contracts lets the residual grow in the norm of M; an
# iterate or a residual ten times as long has run away.
_RUNAWAY = 10.0


class Outcome(NamedTuple):
    """Of ``steps``, the first after each of ``anchors`` took an exact product and the others a batch."""

    x_PK: Tensor
    status: SolveStatus
    steps: int
    anchors: int


@dataclass(frozen=True)
class AnchoredIteration:
    """``examples`` are the operator under ``operator``; an anchor comes every ``anchor_every`` steps."""

    operator: Damped
    examples: SampledOperator
    precondition: Callable[[Tensor], Tensor]
    """``M x``, ``[P, K]``."""
    step_size: float
    batch_size: int
    steps: int
    anchor_every: int

    def run(self, rhs_PK: Tensor, *, tolerance: float, seed: int) -> Outcome:
        """Iterate in the dtype of ``rhs_PK``; ``tolerance`` is relative, of each column's residual.

        The batches depend on the seed alone, so a column's result is its own.
        """
        generator = Generator().manual_seed(seed)
        x_PK = torch.zeros_like(rhs_PK)
        live_K = torch.arange(rhs_PK.shape[1], device=rhs_PK.device)  # columns still iterated: u, v, r are of these
        u_PK, v_PK = torch.zeros_like(rhs_PK), rhs_PK
        bound_K = torch.full_like(rhs_PK[0], math.inf)
        for anchor, step in enumerate(range(0, self.steps, self.anchor_every)):
            r_PK = v_PK - self.operator.matmul(u_PK) if step else v_PK
            x_PK[:, live_K] = u_PK
            keep_K = r_PK.norm(dim=0) > tolerance * v_PK.norm(dim=0)
            live_K, u_PK, v_PK, r_PK, bound_K = (t[..., keep_K] for t in (live_K, u_PK, v_PK, r_PK, bound_K))
            if len(live_K) == 0:
                return Outcome(x_PK, SolveStatus.CONVERGED, step, anchor)
            drive_PK = self.precondition(r_PK)
            energy_K = (r_PK * drive_PK).sum(dim=0)
            if not bool((energy_K <= bound_K).all()):
                return Outcome(x_PK, SolveStatus.DIVERGED, step, anchor)
            if step == 0:
                bound_K = _RUNAWAY**2 * energy_K
            inner = min(self.anchor_every, self.steps - step)
            limit_K = _RUNAWAY / self.operator.damping * v_PK.norm(dim=0)
            d_PK, taken = self._correct(drive_PK, limit_K, inner, generator)
            u_PK = u_PK + d_PK
            if taken < inner:
                x_PK[:, live_K] = u_PK
                return Outcome(x_PK, SolveStatus.DIVERGED, step + taken, anchor + 1)
        x_PK[:, live_K] = u_PK
        return Outcome(x_PK, SolveStatus.MAX_ITERATIONS, self.steps, math.ceil(self.steps / self.anchor_every))

    def _correct(self, drive_PK: Tensor, limit_K: Tensor, steps: int, generator: Generator) -> tuple[Tensor, int]:
        """``A d = r`` from zero, given ``M r``; returns ``d`` and the steps taken, fewer if a column ran away."""
        d_PK = self.step_size * drive_PK  # the first step: every product with zero is zero
        for step in range(1, steps + 1):
            if not bool((d_PK.norm(dim=0) <= limit_K).all()):
                return d_PK, step - 1
            if step == steps:
                break
            batch_B = self.examples.draw(self.batch_size, generator)
            product_PK = torch.add(self.examples.matmul_sampled(d_PK, batch_B), d_PK, alpha=self.operator.damping)
            d_PK = torch.add(d_PK, drive_PK - self.precondition(product_PK), alpha=self.step_size)
        return d_PK, steps
