"""LiSSA with parameters from the spectrum (Agarwal et al. 2017; Klochkov & Liu 2024, arXiv 2409.17357).

``u <- u - step_size (C_B u + damping u - v)``, a fresh batch ``B`` each step. The mean-square error shrinks if
``step_size (lambda_max + damping + tr C / |B|) <= 1``, where ``tr C`` is exact for the way a :class:`SampledOperator`
draws its batches, and the slowest part of the error shrinks by ``1 - step_size * damping`` a step.

A fixed step size leaves a noise floor in proportion to ``v``: plain LiSSA ends at a residual of 0.1 to 0.8 where the
condition is 100. So now and then, at every *anchor*, we form the exact residual ``r = v - A u`` and go on with LiSSA
for the correction, ``A d = r`` from ``d = 0``. The floor then sinks with the residual, which falls as predicted, like
``exp(-step_size * damping * T)``, and a column stops at the anchor at which its residual and its error are both within
the tolerance, or when the plan is done, by when the residual should be. Written out this is the control variate
``C_B (u - a) + C a`` of SVRG (Johnson & Zhang 2013) around the anchor's iterate ``a``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from ascribe.errors import PlanExceedsSteps
from ascribe.lissa_bound import steps_needed
from ascribe.status import SolveStatus
from worker.operators import Damped, SampledOperator
from worker.saved import Saved
from worker.solvers.base import Reusable, Stats, require
from worker.spectrum import BATCH_FACTOR, top

# Anchors in the time in which the slowest error shrinks by e: at 1 the noise slows the solve by a third, at 3 the
# exact products do.
_ANCHORS_PER_DECAY = 2
# float32 iterates leave a residual near 1e-4 at the largest condition that max_steps lets through.
_FLOAT32_TOLERANCE = 1e-3
# No solution is longer than ||v|| / damping, and x = 0 leaves a residual of ||v||: ten times that has run away.
_RUNAWAY = 10.0


@dataclass(frozen=True)
class LissaPlan:
    """What a run will do, and the measurements that decided it."""

    trace: float
    largest_eigenvalue: float
    """An upper bound: the Ritz value plus its residual."""
    max_squared_norm: float
    step_size: float
    batch_size: int
    steps: int
    anchor_every: int
    products: float
    """Products with the whole matrix that ``steps`` cost: the anchors, and batches by their share of the examples."""
    predicted_residual: float
    """After ``steps``; in a run's stats, after those that it took."""
    stability: float
    """``step_size (lambda_max + damping + tr C / |B|)``: stable in mean square up to 1."""


@dataclass(frozen=True)
class LissaState:
    operator: Damped
    examples: SampledOperator
    plan: LissaPlan


@dataclass(frozen=True)
class Lissa(Reusable[LissaState]):
    """Takes a :class:`SampledOperator`. What is ``None`` is chosen from the spectrum; what is not is honoured."""

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

    def check(self, operator: Damped) -> None:
        self.init(operator)  # a plan is all there is to it, and costs a dozen products

    def init(self, operator: Damped) -> LissaState:
        """Measure the spectrum and plan; nothing is solved yet.

        Raises:
            TypeError: if the operator cannot be sampled.
            PlanExceedsSteps: if the plan needs more than ``max_steps``.
        """
        examples = require(operator, SampledOperator)  # type: ignore[type-abstract]  # only isinstance
        ritz = top(examples, self.seed)
        plan = self.plan(
            trace=examples.trace(),
            largest_eigenvalue=min(ritz.upper, examples.norm_bound()),
            max_squared_norm=examples.max_squared_norm(),
            count=examples.count,
            damping=operator.damping,
        )
        if plan.steps > self.max_steps:
            raise PlanExceedsSteps(self._refusal(plan, operator.damping))
        return LissaState(operator, examples, plan)

    def save(self, state: LissaState) -> Saved:
        return Saved(facts=asdict(state.plan))

    def load(self, operator: Damped, saved: Saved) -> LissaState:
        examples = require(operator, SampledOperator)  # type: ignore[type-abstract]  # only isinstance
        return LissaState(operator, examples, LissaPlan(**saved.facts))

    def plan(
        self, *, trace: float, largest_eigenvalue: float, max_squared_norm: float, count: int, damping: float
    ) -> LissaPlan:
        """The plan for a spectrum, by arithmetic alone. A batch of ``count`` or more means exact products."""
        # At so many examples a batch the noise costs a quarter of the step size.
        batch_size = min(count, self.batch_size or math.ceil(BATCH_FACTOR * trace / largest_eigenvalue))
        noise = 0.0 if batch_size == count else trace / batch_size
        rate_bound = largest_eigenvalue + damping + noise
        step_size = self.step_size or 1 / rate_bound
        contraction = step_size * damping
        needed = steps_needed(contraction, self.tolerance)
        anchor_every = 1
        if batch_size < count:
            anchor_every = math.ceil(needed / math.ceil(_ANCHORS_PER_DECAY * contraction * needed))
        # One anchor more than predicted, for what is left of the noise: who has converged stops before it.
        steps = self.steps or anchor_every * (math.ceil(needed / anchor_every) + 1)
        anchors = math.ceil(steps / anchor_every)
        return LissaPlan(
            trace=trace,
            largest_eigenvalue=largest_eigenvalue,
            max_squared_norm=max_squared_norm,
            step_size=step_size,
            batch_size=batch_size,
            steps=steps,
            anchor_every=anchor_every,
            products=anchors + (steps - anchors) * batch_size / count,
            predicted_residual=_predicted(step_size, damping, steps),
            stability=step_size * rate_bound,
        )

    def _refusal(self, plan: LissaPlan, damping: float) -> str:
        # plan() gives at most (log(1/tolerance) + two anchors' share) / contraction, and 3 from rounding up.
        budget = (self.max_steps - 3) / (math.log(1 / self.tolerance) + 2 / _ANCHORS_PER_DECAY)
        problem = f"LiSSA needs {plan.steps} steps at this damping; max_steps is {self.max_steps}."
        if budget <= 1:
            return f"{problem} No damping fits so few: allow more steps."
        rest = 1 / plan.step_size - damping  # the part of an automatic step size that does not move with the damping
        fitting = _round_up(1 / (plan.step_size * budget) if self.step_size else rest / (budget - 1))
        relative = _round_up(fitting / plan.largest_eigenvalue)
        return (
            f"{problem} A damping of {relative:g} relative to the largest eigenvalue ({fitting:g} absolute) fits; "
            "or take solver cg, whose steps grow with the root of the condition only, or curvature ekfac, which is "
            "inverted in closed form."
        )

    def compute(self, state: LissaState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        """Run the plan. The batches depend on the seed alone, so a column's result is its own."""
        dtype = torch.float32 if self.tolerance >= _FLOAT32_TOLERANCE else torch.float64
        x_PK, status, steps, corrections = _run(state, rhs_PK.to(dtype), self.tolerance, self.seed)
        plan = state.plan
        sampled = max(0, steps - corrections) * plan.batch_size / state.examples.count
        stats = Stats(
            iterations=steps,
            products=corrections + math.ceil(sampled),
            condition_bound=1 + plan.largest_eigenvalue / state.operator.damping,
            precision="float32" if dtype == torch.float32 else "float64",
            plan=asdict(plan) | {"predicted_residual": _predicted(plan.step_size, state.operator.damping, steps)},
            notes=self._notes(state),
        )
        return x_PK.to(torch.float64), status, stats

    def _notes(self, state: LissaState) -> tuple[str, ...]:
        notes = []
        if self.batch_size is not None and self.batch_size > state.examples.count:
            notes.append("batch_size is more than there are examples: every step takes all of them.")
        if state.plan.stability > 1 + 1e-9:
            notes.append(
                f"step_size * (largest eigenvalue + damping + trace / batch_size) is {state.plan.stability:.3g}; "
                "above 1 the iteration may diverge: leave step_size to auto, or make it so many times smaller."
            )
        return tuple(notes)


def _run(state: LissaState, rhs_PK: Tensor, tolerance: float, seed: int) -> tuple[Tensor, SolveStatus, int, int]:
    """Returns the solutions ``[P, K]``, the outcome, the steps taken and how many corrections they are part of."""
    plan, operator = state.plan, state.operator
    generator = Generator().manual_seed(seed)
    x_PK = torch.zeros_like(rhs_PK)
    live_K = torch.arange(rhs_PK.shape[1])  # the columns still iterated; u, v, r and d are of these alone
    u_PK, v_PK = torch.zeros_like(rhs_PK), rhs_PK
    for step in range(0, plan.steps, plan.anchor_every):
        r_PK = v_PK - operator.matmul(u_PK) if step else v_PK
        x_PK[:, live_K] = u_PK
        norm_K, residual_K = v_PK.norm(dim=0), r_PK.norm(dim=0)
        if not bool((residual_K <= _RUNAWAY * norm_K).all()):
            return x_PK, SolveStatus.DIVERGED, step, step // plan.anchor_every
        # The error of u is at most ||r|| / damping. Where v lies along large eigenvalues u is short, and what a small
        # residual leaves out can be all that tells one example's score from another's.
        keep_K = residual_K > tolerance * torch.minimum(norm_K, operator.damping * u_PK.norm(dim=0))
        live_K, u_PK, v_PK, r_PK = live_K[keep_K], u_PK[:, keep_K], v_PK[:, keep_K], r_PK[:, keep_K]
        if len(live_K) == 0:
            return x_PK, SolveStatus.CONVERGED, step, step // plan.anchor_every
        inner = min(plan.anchor_every, plan.steps - step)
        d_PK, taken = _correct(state, r_PK, _RUNAWAY / operator.damping * norm_K[keep_K], inner, generator)
        u_PK = u_PK + d_PK
        if taken < inner:
            x_PK[:, live_K] = u_PK
            return x_PK, SolveStatus.DIVERGED, step + taken, step // plan.anchor_every + 1
    x_PK[:, live_K] = u_PK
    return x_PK, SolveStatus.MAX_ITERATIONS, plan.steps, math.ceil(plan.steps / plan.anchor_every)


def _correct(state: LissaState, r_PK: Tensor, limit_K: Tensor, steps: int, generator: Generator) -> tuple[Tensor, int]:
    """LiSSA for ``A d = r`` from zero; returns ``d`` and the steps taken, fewer than asked for if a column ran away."""
    plan = state.plan
    drive_PK = plan.step_size * r_PK
    d_PK = drive_PK.clone()  # the first step: every product with zero is zero
    for step in range(1, steps + 1):
        if not bool((d_PK.norm(dim=0) <= limit_K).all()):
            return d_PK, step - 1
        if step == steps:
            break
        batch_B = state.examples.draw(plan.batch_size, generator)
        noisy_PK = state.examples.matmul_sampled(d_PK, batch_B)
        d_PK.mul_(1 - plan.step_size * state.operator.damping).add_(drive_PK).sub_(noisy_PK, alpha=plan.step_size)
    return d_PK, steps


def _predicted(step_size: float, damping: float, steps: int) -> float:
    return math.exp(-step_size * damping * steps)


def _round_up(value: float) -> float:
    """To two significant digits, never down."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
