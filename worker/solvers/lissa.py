"""LiSSA with parameters from the spectrum (Agarwal et al. 2017; Klochkov & Liu 2024, arXiv 2409.17357).

``u <- u - step_size (C_B u + damping u - v)``, a fresh batch ``B`` each step. The mean-square error shrinks if
``step_size (lambda_max + damping + tr C / |B|) <= 1``, where ``tr C`` is exact for the way a :class:`SampledOperator`
draws its batches, and the slowest part of the error shrinks by ``1 - step_size * damping`` a step.

The anchors of :mod:`worker.solvers.anchored` take the noise floor of a fixed step size away; the residual then falls as
predicted, like ``exp(-step_size * damping * T)``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ascribe.errors import PlanExceedsSteps
from ascribe.lissa_bound import steps_needed
from ascribe.status import SolveStatus
from worker.operators import Damped, SampledOperator
from worker.saved import Saved
from worker.solvers.anchored import ANCHORS_PER_DECAY, AnchoredIteration, Schedule, Stochastic
from worker.solvers.base import Stats, require
from worker.spectrum import BATCH_FACTOR, top

# float32 iterates leave a residual near 1e-4 at the largest condition that max_steps lets through.
_FLOAT32_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LissaPlan(Schedule):
    """What a run will do, and the measurements that decided it."""

    trace: float
    largest_eigenvalue: float
    """An upper bound: the Ritz value plus its residual."""
    max_squared_norm: float
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
class Lissa(Stochastic[LissaState]):
    """Takes a :class:`SampledOperator`."""

    def check(self, operator: Damped) -> None:
        self.init(operator)  # a plan is all there is to it, and costs a dozen products

    def init(self, operator: Damped) -> LissaState:
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
            anchor_every = math.ceil(needed / math.ceil(ANCHORS_PER_DECAY * contraction * needed))
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
        budget = (self.max_steps - 3) / (math.log(1 / self.tolerance) + 2 / ANCHORS_PER_DECAY)
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
        plan, damping = state.plan, state.operator.damping
        dtype = torch.float32 if self.tolerance >= _FLOAT32_TOLERANCE else torch.float64
        iteration = AnchoredIteration(state.operator, state.examples, plan)
        outcome = iteration.run(rhs_PK.to(dtype), tolerance=self.tolerance, seed=self.seed)
        taken = replace(plan, predicted_residual=_predicted(plan.step_size, damping, outcome.steps))
        stats = Stats(
            iterations=outcome.steps,
            products=outcome.products(plan.batch_size, state.examples.count),
            condition_bound=1 + plan.largest_eigenvalue / damping,
            precision="float32" if dtype == torch.float32 else "float64",
            plan=asdict(taken),
            notes=self._notes(state),
        )
        return outcome.x_PK.to(torch.float64), outcome.status, stats

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


def _predicted(step_size: float, damping: float, steps: int) -> float:
    return math.exp(-step_size * damping * steps)


def _round_up(value: float) -> float:
    """To two significant digits, never down."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
