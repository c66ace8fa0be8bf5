"""The Schulz (Newton) iteration ``X <- X (2I - A X)`` for an explicit inverse, done right and as published.

Done right: its Chebyshev forms of degree 2, 3, 5 and 7 (:mod:`worker.solvers.schulz_steps`), scaled to an interval that
holds the spectrum, so that the fewest products and their outcome are known before the first. As published: HyperINF
(:mod:`worker.solvers.schulz_published`). Few rows are inverted through their Gram matrix.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator, RowsOperator
from worker.saved import Saved
from worker.solvers.base import Stats, WarmStarting, require
from worker.solvers.schulz_inverse import (
    COLD_SAVES,
    Inverse,
    Precision,
    Recipe,
    Start,
    breakdown,
    choose,
    cold_start,
    invert,
)
from worker.solvers.schulz_problem import Problem
from worker.solvers.schulz_published import published_inverse
from worker.solvers.schulz_warm import grown_start, path_start
from worker.solvers.woodbury import second_moment, solve_through, system_size

# Matrices in flight for one block: A, X, R, R^2, R + R^2, the series, p(R), the next X.
_MATRICES = 8
# A correction of x multiplies its error by ||I - A X||: one where two factors of that are enough, else two.
_ENOUGH = 1e-10


@dataclass(frozen=True)
class SchulzState:
    """``inverse`` is ``X`` in float64, ``[P, P]``, or for few rows the inverse of ``G G^T + N lambda I``."""

    operator: Damped
    inverse: Tensor
    status: SolveStatus
    """Whether the iteration broke down."""
    stats: Stats


@dataclass(frozen=True)
class Schulz(WarmStarting[SchulzState]):
    """Takes a :class:`DenseOperator` or a :class:`RowsOperator`.

    ``tolerance`` bounds ``||I - A X||_2`` by plan; then ``||I - A X||_F`` is measured, and corrected to ``sqrt(P)
    tolerance`` where rounding left more. ``precision`` is that of the early steps, which are always measured and
    finished in float64; ``auto`` means float32 up to a condition of 1e5, and ``tfloat32`` that
    products may round their factors to 11 bits, on cards that can. ``memory_bytes`` bounds what
    :meth:`init_all` works on at once. ``iterations`` caps the steps of ``start="chebyshev"``, 4 at a condition of 1e4,
    and is the exact number of those of ``start="published"``, which reproduces the released code for comparison.
    """

    keeps: ClassVar[str] = "the inverse"

    tolerance: float = 1e-6
    start: Literal["chebyshev", "published"] = "chebyshev"
    iterations: int = 30
    precision: Precision | Literal["auto"] = "auto"
    memory_bytes: int = 2**30

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise ValueError("tolerance must lie between 0 and 1")
        if self.iterations < 1:
            raise ValueError("iterations must be at least 1")
        if self.memory_bytes < 1:
            raise ValueError("memory_bytes must be at least 1")

    def check(self, operator: Damped) -> None:
        """See :meth:`Solver.check`.

        Raises:
            ValueError: if the damping is zero: it is the lower end of the spectrum.
        """
        system_size(operator)
        if operator.damping == 0:
            raise ValueError("schulz needs a damping above zero")

    def init(self, operator: Damped) -> SchulzState:
        return next(self.init_all([operator]))

    def init_all(self, operators: Iterable[Damped]) -> Iterator[SchulzState]:
        for window in self._windows(operators):
            if self.start == "published":
                yield from (_published(operator, self.iterations) for operator in window)
            else:
                yield from self._invert([Problem.of(operator) for operator in window])

    def init_from(self, operator: Damped, earlier: SchulzState) -> SchulzState:
        """See :meth:`WarmStarting.init_from`; ``earlier`` is used where that takes fewer products."""
        if self.start == "published":
            return self.init(operator)
        self.check(operator)
        problem = Problem.of(operator)
        start = _warm_start(problem, earlier)
        if start is not None:
            recipe = self._recipe(problem, start.angle_B[0])
            cold = self._recipe(problem, problem.angle).products - COLD_SAVES
            if recipe.products - start.saved < cold:
                (inverse,) = invert(
                    problem.damped()[None], start, recipe, [problem.frobenius_tolerance(self.tolerance)]
                )
                return self._finish(problem, start, recipe, inverse, {"warm_start": 1, "cold_products": cold})
        (state,) = self._invert([problem])
        return _with_note(state, "The inverse of the earlier curvature saves no products here: the start was cold.")

    def _windows(self, operators: Iterable[Damped]) -> Iterator[list[Damped]]:
        window: list[Damped] = []
        held = 0
        for operator in operators:
            self.check(operator)
            needed = 8 * _MATRICES * system_size(operator) ** 2
            if window and held + needed > self.memory_bytes:
                yield window
                window, held = [], 0
            window.append(operator)
            held += needed
        if window:
            yield window

    def _invert(self, problems: Sequence[Problem]) -> list[SchulzState]:
        """The states in order; what takes the same steps on matrices of one size takes them as one stack.

        Not on a CPU, which a single matrix keeps busy: a stack of 24 of 384 left its caches and was slower by a tenth
        in float32 and a quarter in float64, and odd sizes would shift its matrices in memory and so their rounding.
        """
        states: dict[int, SchulzState] = {}
        stacks: defaultdict[tuple[int, Recipe, int | None], list[int]] = defaultdict(list)
        for index, problem in enumerate(problems):
            if problem.is_finite:
                alone = index if problem.matrix_PP.device.type == "cpu" else None
                stacks[problem.size, self._recipe(problem, problem.angle), alone].append(index)
            else:
                states[index] = _not_finite(problem)
        for (_, recipe, _), indices in stacks.items():
            members = [problems[index] for index in indices]
            a_BPP = torch.stack([problem.damped() for problem in members])
            start = cold_start(a_BPP, [problem.lower for problem in members], [problem.upper for problem in members])
            tolerance_B = [problem.frobenius_tolerance(self.tolerance) for problem in members]
            for index, inverse in zip(indices, invert(a_BPP, start, recipe, tolerance_B), strict=True):
                states[index] = self._finish(problems[index], start, recipe, inverse, {"warm_start": 0})
        return [states[index] for index in range(len(problems))]

    def _recipe(self, problem: Problem, angle: float) -> Recipe:
        tolerance = problem.tolerance(self.tolerance)
        whole = choose(angle, problem.condition, tolerance, problem.size, self.precision)
        return whole if len(whole.degrees) <= self.iterations else whole.cut(self.iterations)

    def _finish(
        self, problem: Problem, start: Start, recipe: Recipe, inverse: Inverse, facts: Mapping[str, float | int]
    ) -> SchulzState:
        broken = recipe.whole and not inverse.is_contraction
        if broken and recipe.precision != "float64":
            (state,) = replace(self, precision="float64")._invert([problem])
            stats = replace(state.stats, products=state.stats.products + inverse.products)
            note = f"{recipe.precision} steps left ||I - A X|| at {inverse.error:.2g}: taken again in float64."
            return _with_note(replace(state, stats=stats), note)
        status, notes = breakdown(problem.damped(), problem.upper) if broken else (SolveStatus.CONVERGED, ())
        stats = Stats(
            iterations=len(recipe.degrees) + inverse.corrections,
            products=inverse.products,
            condition_bound=problem.condition,
            precision=recipe.precision if recipe.precision == "float64" else f"{recipe.precision}+float64",
            inverse_residual_bound=problem.amplification * inverse.error,
            plan={
                "degree": math.prod(recipe.degrees),
                "planned_products": recipe.products - start.saved,
                "low_precision_products": inverse.low_products,
                **facts,
            },
            notes=notes,
        )
        return SchulzState(problem.operator, inverse.x_PP, status, stats)

    def save(self, state: SchulzState) -> Saved:
        return Saved({"inverse": state.inverse}, {"status": state.status.value, "stats": asdict(state.stats)})

    def load(self, operator: Damped, saved: Saved) -> SchulzState:
        self.check(operator)
        stats = dict(saved.facts["stats"])
        stats["notes"] = tuple(stats["notes"])  # JSON has lists only
        return SchulzState(operator, saved.tensor("inverse"), SolveStatus(saved.facts["status"]), Stats(**stats))

    def compute(self, state: SchulzState, rhs_PK: Tensor) -> tuple[Tensor, SolveStatus, Stats]:
        """``X v``, and except for the published start one correction ``x <- x + X (v - A x)`` or two.

        A column is corrected while that brings its residual, in float64, closer to zero.
        """
        x_PK = self._apply(state, rhs_PK)
        bound = state.stats.inverse_residual_bound
        if bound is not None:
            left_PK = rhs_PK - state.operator.matmul(x_PK)
            for _ in range(1 if bound**2 <= _ENOUGH else 2):
                closer_PK = x_PK + self._apply(state, left_PK)
                closer_left_PK = rhs_PK - state.operator.matmul(closer_PK)
                helps_K = closer_left_PK.norm(dim=0) < left_PK.norm(dim=0)
                x_PK = torch.where(helps_K, closer_PK, x_PK)
                left_PK = torch.where(helps_K, closer_left_PK, left_PK)
        return x_PK, state.status, state.stats

    def quadratic(self, state: SchulzState, rhs_PK: Tensor) -> Tensor:
        """``v^T X v``, whose relative error is within ``||I - A X||``: no correction is needed."""
        return (rhs_PK * self._apply(state, rhs_PK)).sum(dim=0)

    def _apply(self, state: SchulzState, rhs_PK: Tensor) -> Tensor:
        if self.start == "published":
            return state.inverse @ rhs_PK
        return solve_through(state.operator, lambda rhs: state.inverse @ rhs, rhs_PK)


def _warm_start(problem: Problem, earlier: SchulzState) -> Start | None:
    if earlier.status is not SolveStatus.CONVERGED or not problem.is_finite:
        return None
    bound = earlier.stats.inverse_residual_bound  # none of the published start, which measures nothing
    if bound is not None and earlier.operator.operator is problem.operator.operator:
        damping = problem.lower * (earlier.operator.damping / problem.operator.damping)
        return path_start(earlier.inverse, bound, damping, problem.lower, problem.upper - problem.lower)
    if earlier.inverse.shape == problem.matrix_PP.shape:
        return grown_start(problem.damped(), earlier.inverse)
    return None


def _published(operator: Damped, iterations: int) -> SchulzState:
    """On the whole matrix, however few the rows: that is what the released code does."""
    match operator.operator:
        case RowsOperator() as rows:
            matrix_PP = second_moment(rows)
        case _:
            matrix_PP = require(operator, DenseOperator).matrix_PP
    return SchulzState(operator, *published_inverse(operator, matrix_PP, iterations))


def _not_finite(problem: Problem) -> SchulzState:
    stats = Stats(
        iterations=0,
        products=0,
        condition_bound=None,
        precision="float64",
        notes=("The curvature holds a value that is not finite.",),
    )
    return SchulzState(problem.operator, torch.full_like(problem.matrix_PP, torch.nan), SolveStatus.NON_FINITE, stats)


def _with_note(state: SchulzState, note: str) -> SchulzState:
    return replace(state, stats=replace(state.stats, notes=(note, *state.stats.notes)))
