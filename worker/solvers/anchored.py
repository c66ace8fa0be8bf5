"""Preconditioned stochastic iterations whose noise floor sinks with the residual.

``d <- d - step_size M (C_B d + damping d - r)`` from zero, a fresh batch ``B`` each step, solves ``A d = r`` up to a
noise in proportion to ``r``. So now and then, at every *anchor*, the exact residual ``r = v - A u`` is formed, the
iteration goes on with the correction for it, and a column that has converged stops. ``M`` is whatever resembles
``A^-1``. Why this works, and what it has to do with SVRG: :mod:`worker.solvers.lissa`, where ``M`` is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, SampledOperator

# No solution is longer than ||v|| / damping, and no step that contracts lets the residual grow in the norm of M; an
# iterate or a residual ten times as long has run away.
_RUNAWAY = 10.0


class Schedule(Protocol):
    @property
    def step_size(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def anchor_every(self) -> int: ...


class Outcome(NamedTuple):
    """``anchors`` are exact products, one for each; the other ``steps`` took a batch."""

    x_PK: Tensor
    status: SolveStatus
    steps: int
    anchors: int


Precondition = Callable[[Tensor], Tensor]


def run(
    operator: Damped,
    examples: SampledOperator,
    schedule: Schedule,
    precondition: Precondition,
    rhs_PK: Tensor,
    *,
    tolerance: float,
    seed: int,
) -> Outcome:
    """Iterate in the dtype of ``rhs_PK``. The batches depend on the seed alone, so a column's result is its own."""
    generator = Generator().manual_seed(seed)
    x_PK = torch.zeros_like(rhs_PK)
    live_K = torch.arange(rhs_PK.shape[1], device=rhs_PK.device)  # the columns still iterated: u, v, r are of these
    u_PK, v_PK = torch.zeros_like(rhs_PK), rhs_PK
    bound_K = torch.full_like(rhs_PK[0], math.inf)
    anchors = 0
    for step in range(0, schedule.steps, schedule.anchor_every):
        r_PK = v_PK - operator.matmul(u_PK) if anchors else v_PK
        x_PK[:, live_K] = u_PK
        keep_K = r_PK.norm(dim=0) > tolerance * v_PK.norm(dim=0)
        live_K, u_PK, v_PK, r_PK, bound_K = (t[..., keep_K] for t in (live_K, u_PK, v_PK, r_PK, bound_K))
        if len(live_K) == 0:
            return Outcome(x_PK, SolveStatus.CONVERGED, step, anchors)
        drive_PK = precondition(r_PK)
        energy_K = (r_PK * drive_PK).sum(dim=0)
        if not bool((energy_K <= bound_K).all()):
            return Outcome(x_PK, SolveStatus.DIVERGED, step, anchors)
        if anchors == 0:
            bound_K = _RUNAWAY**2 * energy_K
        anchors += 1
        inner = min(schedule.anchor_every, schedule.steps - step)
        limit_K = _RUNAWAY / operator.damping * v_PK.norm(dim=0)
        d_PK, taken = _correct(operator, examples, schedule, precondition, drive_PK, limit_K, inner, generator)
        u_PK = u_PK + d_PK
        if taken < inner:
            x_PK[:, live_K] = u_PK
            return Outcome(x_PK, SolveStatus.DIVERGED, step + taken, anchors)
    x_PK[:, live_K] = u_PK
    return Outcome(x_PK, SolveStatus.MAX_ITERATIONS, schedule.steps, anchors)


def _correct(
    operator: Damped,
    examples: SampledOperator,
    schedule: Schedule,
    precondition: Precondition,
    drive_PK: Tensor,
    limit_K: Tensor,
    steps: int,
    generator: Generator,
) -> tuple[Tensor, int]:
    """``A d = r`` from zero for ``drive = M r``; returns ``d`` and the steps taken, fewer if a column ran away."""
    d_PK = schedule.step_size * drive_PK  # the first step: every product with zero is zero
    for step in range(1, steps + 1):
        if not bool((d_PK.norm(dim=0) <= limit_K).all()):
            return d_PK, step - 1
        if step == steps:
            break
        batch_B = examples.draw(schedule.batch_size, generator)
        product_PK = examples.matmul_sampled(d_PK, batch_B).add_(d_PK, alpha=operator.damping)
        d_PK.add_(drive_PK - precondition(product_PK), alpha=schedule.step_size)
    return d_PK, steps
