"""ASTRA: stochastic Neumann iterations preconditioned by EK-FAC (Wang et al. 2025).

``x <- x - step_size P^-1 (C_B x + damping x - v)`` with ``P = EK-FAC + damping I``, a fresh batch ``B`` each step. What
decides the steps is the spectrum ``[l, u]`` of ``P^-1/2 A P^-1/2`` in place of that of ``A``: LiSSA's plan with

    step_size (u + noise / |B|) <= 1,    contraction = step_size * l,

and its anchors against the noise floor, see :mod:`worker.solvers.anchored`. The published start ``P^-1 v`` would be off
by ``u - 1`` times ``v`` where ``P`` underestimates ``A``; the first step from zero is the same vector at a safe length.

``P`` is block-diagonal: where one strong eigenvector of ``C`` runs through many blocks it sees as many, ``u`` grows to
their number, ``l`` falls, and LiSSA may need fewer steps. So both conditions are measured and compared.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Generator, Tensor

from ascribe.errors import PlanExceedsSteps
from ascribe.lissa_bound import steps_needed
from ascribe.status import SolveStatus
from worker.eigen_operators import PreconditionedOperator
from worker.operators import Damped
from worker.saved import Saved
from worker.solvers.anchored import ANCHORS_PER_DECAY, AnchoredIteration, Schedule, Stochastic
from worker.solvers.base import Stats, require
from worker.spectrum import lanczos

# As in LiSSA: at this many times noise / u examples a batch the noise costs a quarter of the step size.
_BATCH_FACTOR = 4
# The noise is a mean over so many random vectors and as many batches of this size.
_PROBES = 8
_PROBE_BATCH = 64
# A residual in float32 is good to about 1e-7 times the condition; this leaves the tolerance ten times that.
_FLOAT32_ERROR = 1e-6
_TOP_TOLERANCE = 1e-2
# Of u: plans within any sensible max_steps have l above a thousandth of u.
_BOTTOM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class AstraPlan(Schedule):
    """What a run will do, and the measurements that decided it."""

    largest_eigenvalue: float
    """``u``, an upper bound: the Ritz value plus its residual."""
    smallest_eigenvalue: float
    """``l``, the Ritz value minus its residual."""
    noise: float
    """The mean of ``|B| tr(P^-1 (C_B - C) P^-1 (C_B - C))``, relative to ``tr(P^-1 C)``."""
    plain_condition: float
    """An upper bound on the condition of ``A`` itself."""
    predicted_residual: float
    """After ``steps``; in a run's stats, after those that it took."""
    stability: float
    """``step_size (u + noise / |B|)``: stable in mean square up to 1."""

    @property
    def condition(self) -> float:
        """That of the preconditioned matrix."""
        return self.largest_eigenvalue / self.smallest_eigenvalue


@dataclass(frozen=True)
class AstraState:
    operator: Damped
    examples: PreconditionedOperator
    plan: AstraPlan


@dataclass(frozen=True)
class Astra(Stochastic[AstraState]):
    """Takes a :class:`PreconditionedOperator`."""

    def check(self, operator: Damped) -> None:
        """The kind alone: to know the steps is most of ``init``, which takes dozens of products."""
        require(operator, PreconditionedOperator)

    def init(self, operator: Damped) -> AstraState:
        examples = require(operator, PreconditionedOperator)
        generator = Generator().manual_seed(self.seed)
        largest, smallest = _extremes(operator, examples, generator)
        plan = self.plan(
            largest_eigenvalue=largest,
            smallest_eigenvalue=smallest,
            noise=_noise(operator.damping, examples, generator),
            plain_condition=1 + lanczos(examples, generator, _TOP_TOLERANCE).upper / operator.damping,
            norms=_norms(examples.preconditioner_bound(), operator.damping),
            count=examples.count,
        )
        if plan.steps > self.max_steps:
            raise PlanExceedsSteps(
                f"ASTRA needs {plan.steps} steps at this damping; max_steps is {self.max_steps}. EK-FAC takes the "
                f"condition from {plan.plain_condition:.3g} to {plan.condition:.3g}. Raise the damping, or use CG."
            )
        return AstraState(operator, examples, plan)

    def save(self, state: AstraState) -> Saved:
        return Saved(facts=asdict(state.plan))

    def load(self, operator: Damped, saved: Saved) -> AstraState:
        return AstraState(operator, require(operator, PreconditionedOperator), AstraPlan(**saved.facts))

    def plan(
        self,
        *,
        largest_eigenvalue: float,
        smallest_eigenvalue: float,
        noise: float,
        plain_condition: float,
        norms: float,
        count: int,
    ) -> AstraPlan:
        """The plan for a spectrum, by arithmetic alone. A batch of ``count`` or more means exact products.

        The residual shrinks in the norm of ``P^-1`` and is asked for in that of ``I``, at most ``norms`` times as long.
        """
        batch_size = self.batch_size or max(1, math.ceil(_BATCH_FACTOR * noise / largest_eigenvalue))
        batch_size = min(count, batch_size)
        rate_bound = largest_eigenvalue + (0.0 if batch_size == count else noise / batch_size)
        step_size = self.step_size or 1 / rate_bound
        contraction = step_size * smallest_eigenvalue
        anchor_every = 1 if batch_size == count else math.ceil(1 / (ANCHORS_PER_DECAY * contraction))
        anchors = math.ceil(steps_needed(contraction, self.tolerance / norms) / anchor_every) + 1
        steps = self.steps or anchor_every * anchors
        return AstraPlan(
            largest_eigenvalue=largest_eigenvalue,
            smallest_eigenvalue=smallest_eigenvalue,
            noise=noise,
            plain_condition=plain_condition,
            step_size=step_size,
            batch_size=batch_size,
            steps=steps,
            anchor_every=anchor_every,
            predicted_residual=norms * math.exp(-contraction * steps),
            stability=step_size * rate_bound,
        )

    def compute(self, state: AstraState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        """Run the plan. The batches depend on the seed alone, so a column's result is its own."""
        plan, examples, damping = state.plan, state.examples, state.operator.damping
        dtype = torch.float32 if self.tolerance >= _FLOAT32_ERROR * plan.plain_condition else torch.float64
        iteration = AnchoredIteration(state.operator, examples, plan, lambda r_PK: examples.precondition(r_PK, damping))
        outcome = iteration.run(rhs_PK.to(dtype), tolerance=self.tolerance, seed=self.seed)
        contraction, norms = plan.step_size * plan.smallest_eigenvalue, _norms(examples.preconditioner_bound(), damping)
        taken = replace(plan, predicted_residual=norms * math.exp(-contraction * outcome.steps))
        stats = Stats(
            iterations=outcome.steps,
            products=outcome.products(plan.batch_size, examples.count),
            condition_bound=plan.plain_condition,
            precision="float32" if dtype == torch.float32 else "float64",
            plan=asdict(taken),
            notes=_notes(plan),
        )
        return outcome.x_PK.to(torch.float64), outcome.status, stats


@dataclass(frozen=True)
class _Preconditioned:
    """``shift I + sign P^-1/2 A P^-1/2``, with the eigenvalues of ``P^-1 A``."""

    operator: Damped
    examples: PreconditionedOperator
    shift: float = 0.0
    sign: float = 1.0

    @property
    def size(self) -> int:
        return self.operator.size

    def matmul(self, x_PK: Tensor) -> Tensor:
        damping = self.operator.damping
        y_PK = self.operator.matmul(self.examples.precondition_root(x_PK, damping))
        return self.shift * x_PK + self.sign * self.examples.precondition_root(y_PK, damping)


def _extremes(operator: Damped, examples: PreconditionedOperator, generator: Generator) -> tuple[float, float]:
    """An upper bound on the largest eigenvalue of ``P^-1 A`` and a lower one on the smallest."""
    largest = lanczos(_Preconditioned(operator, examples), generator, _TOP_TOLERANCE).upper
    turned = lanczos(_Preconditioned(operator, examples, largest, -1.0), generator, _BOTTOM_TOLERANCE).upper
    floor = operator.damping / (examples.preconditioner_bound() + operator.damping)  # A >= damping I
    return largest, max(floor, largest - turned)


def _norms(preconditioner_bound: float, damping: float) -> float:
    """The root of the condition of ``P``."""
    return math.sqrt(1 + preconditioner_bound / damping)


def _noise(damping: float, examples: PreconditionedOperator, generator: Generator) -> float:
    """How far ``P^-1/2 C_B P^-1/2`` is from its mean, by Gaussian vectors; one exact product for all of them.

    Klochkov & Liu (arXiv 2409.17357, section 3.3) have the same term for ``P = I`` from pairs of batches.
    """
    probe_PK = torch.randn(examples.size, _PROBES, generator=generator, dtype=torch.float64)
    y_PK = examples.precondition_root(probe_PK, damping)
    mean_PK = examples.matmul(y_PK)
    squared = 0.0
    for _ in range(_PROBES):
        batch_B = examples.draw(_PROBE_BATCH, generator)
        error_PK = examples.precondition_root(examples.matmul_sampled(y_PK, batch_B) - mean_PK, damping)
        squared += float(error_PK.square().sum())
    return _PROBE_BATCH * squared / _PROBES / float((y_PK * mean_PK).sum())


def _notes(plan: AstraPlan) -> tuple[str, ...]:
    notes = []
    if plan.stability > 1 + 1e-9:
        notes.append(
            f"step_size * (largest preconditioned eigenvalue + noise / batch_size) is {plan.stability:.3g}; above 1 "
            "the iteration may diverge."
        )
    if plan.condition > plan.plain_condition:
        notes.append(
            f"EK-FAC makes the condition worse here, {plan.condition:.3g} where it is {plan.plain_condition:.3g} "
            "without: LiSSA and CG need fewer steps."
        )
    return tuple(notes)
