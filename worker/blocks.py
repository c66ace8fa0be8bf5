"""Curvature, damping and solve of every block, and what each of them reports.

All blocks are checked before the first is solved: a plan that one block cannot afford fails the job at once.
What an earlier job left of a block is taken in place of computing it, see :mod:`worker.reuse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from ascribe.errors import SolveFailed
from ascribe.job import Phase
from ascribe.result import BlockDiagnostics, Reuse, Spectrum
from ascribe.spec import JobSpec
from ascribe.status import SolveStatus
from ascribe.store import Store
from worker.curvature.block import CurvatureBlock
from worker.curvatures.base import Block, Curvatures
from worker.damping import damping_unit
from worker.describe import describe, measured, warnings_of, zero_block
from worker.directions import top_directions, without
from worker.gradients.cache import Gradients
from worker.operators import Damped
from worker.progress import Reporter
from worker.registry import build_solver
from worker.reuse import KeptState, Shelf, ShelfKeys, open_shelf
from worker.scores.self_influence import self_influence
from worker.solvers.base import Reusable, Solver, WarmStarting
from worker.solvers.solve import Solution, solve

NO_SCORES = (SolveStatus.DIVERGED, SolveStatus.NON_FINITE, SolveStatus.NOT_POSITIVE_DEFINITE)


@dataclass(frozen=True, slots=True)
class SolvedValue:
    """All blocks at one value of the damping path.

    ``ihvp_QP`` float64: a row a right-hand side.
    """

    ihvp_QP: Tensor
    self_influence_N: Tensor | None
    diagnostics: list[BlockDiagnostics] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SolvedBlocks:
    """``without_top_QP``: the validation gradients less the curvature's top directions, where asked for."""

    values: tuple[SolvedValue, ...]
    grad_QP: Tensor
    without_top_QP: Tensor | None
    reused: Mapping[str, Reuse]
    warnings: tuple[str, ...]
    solution_fingerprint: str | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A block ready to be solved at every value of the path. ``path`` is empty where all its gradients are zero.

    ``kept`` is the solver's first state as an earlier job left it, ``earlier`` that of another curvature, from which
    the spec asked to start: views into a file, read when the block is solved.
    """

    index: int
    block: Block
    curvature: CurvatureBlock
    path: tuple[Damped, ...]
    kept: KeptState | None
    earlier: KeptState | None
    spectrum: Spectrum | None


@dataclass(frozen=True, slots=True)
class _State:
    """A solver's state, and whether it is new: what was read from a file is not written again."""

    value: Any
    new: bool = True


def solve_blocks(
    spec: JobSpec,
    curvatures: Curvatures,
    train: Gradients,
    grad_QP: Tensor,
    reporter: Reporter,
    *,
    store: Store,
    gradient_fingerprint: str,
) -> SolvedBlocks:
    """Solve ``(C + damping I) x = g_q`` in every block for every row of ``grad_QP``, float64.

    ``gradient_fingerprint`` is that of ``train``: what is kept of its curvature is found and left under it.

    Raises:
        NonFinite: a curvature is not finite.
        PlanExceedsSteps, LimitExceeded: from the solver's check, before anything is solved.
        SolveFailed: a block ended without a usable solution.
        StorageFailed: an entry of the store cannot be made.
    """
    solver = build_solver(spec)
    keys = ShelfKeys.of(spec, curvatures, gradient_fingerprint)
    blocks = len(curvatures.blocks)
    with open_shelf(store, keys, solver, blocks=blocks) as shelf:
        with reporter.phase(Phase.BUILDING_CURVATURE, blocks):
            prepared = _prepare(spec, curvatures, solver, shelf, reporter)
        with reporter.phase(Phase.SOLVING, blocks):
            job = _Job(spec, train, grad_QP, solver, shelf)
            job.solve(prepared, reporter)
    return SolvedBlocks(
        tuple(job.values),
        job.grad_QP,
        job.without_top_QP,
        shelf.reused(),
        (
            *curvatures.notes(),
            *warnings_of([block for value in job.values for block in value.diagnostics]),
            *shelf.warnings(),
        ),
        keys.solutions[0] if isinstance(solver, Reusable) else None,
    )


def _prepare(
    spec: JobSpec, curvatures: Curvatures, solver: Solver[Any], shelf: Shelf, reporter: Reporter
) -> list[_Prepared]:
    prepared = []
    for index, block in enumerate(curvatures.blocks):
        curvature = shelf.curvature(index, curvatures)
        path: tuple[Damped, ...] = ()
        kept = earlier = spectrum = None
        if not curvature.is_zero:
            spectrum = measured(curvature, spec) if spec.output.spectrum else None
            largest, *others = falling(spec)
            kept = shelf.state(index, largest)
            earlier = shelf.earlier_state(index)
            path = tuple(Damped(curvature.operator, damping) for damping in _dampings(curvature, spec))
            for place in others if kept is not None else range(len(path)):  # who left a state had it checked
                solver.check(path[place])
        prepared.append(_Prepared(index, block, curvature, path, kept, earlier, spectrum))
        reporter.advance()
    return prepared


def falling(spec: JobSpec) -> list[int]:
    """Places on the damping path from the largest down: the inverse at one is a good start for the next."""
    factors = (0.0,) if spec.damping is None else spec.damping.factors
    return sorted(range(len(factors)), key=lambda place: -factors[place])


def _dampings(block: CurvatureBlock, spec: JobSpec) -> list[float]:
    if spec.damping is None:  # curvature 'none'
        return [0.0]
    unit = damping_unit(block, spec.damping.form, spec.seed)
    return [factor * unit for factor in spec.damping.factors]


class _Job:
    """The solutions of one job, filled block by block."""

    def __init__(self, spec: JobSpec, train: Gradients, grad_QP: Tensor, solver: Solver[Any], shelf: Shelf) -> None:
        self._spec, self._train, self._solver, self._shelf = spec, train, solver, shelf
        self._order = falling(spec)
        self.grad_QP = grad_QP
        self.values = [self._empty() for _ in range(spec.damping_count)]
        self.without_top_QP = self.grad_QP.clone() if spec.output.role_of_inverse else None

    def _empty(self) -> SolvedValue:
        wanted = self._spec.output.self_influence
        return SolvedValue(
            torch.zeros(self.grad_QP.shape, dtype=torch.float64),
            torch.zeros(self._train.rows, dtype=torch.float64) if wanted else None,
        )

    def solve(self, prepared: Sequence[_Prepared], reporter: Reporter) -> None:
        # The solver may make several states at once, as it likes: they come in the order in which they are wanted.
        made = self._solver.init_all(
            block.path[self._order[0]] for block in prepared if self._starts_from_nothing(block)
        )
        for block in prepared:
            if block.path:
                self._solve_path(block, self._first_state(block, made))
                self._take_top_out(block)
            else:
                for value in self.values:
                    value.diagnostics.append(zero_block(block.block.shape))
            reporter.advance()

    def _starts_from_nothing(self, block: _Prepared) -> bool:
        return bool(block.path) and block.kept is None and block.earlier is None

    def _first_state(self, block: _Prepared, made: Iterator[Any]) -> _State:
        if block.kept is not None:
            return self._read(block.path[self._order[0]], block.kept)
        if block.earlier is not None:
            assert isinstance(self._solver, WarmStarting)
            operator = block.curvature.operator
            if not block.earlier.of_this_curvature:
                operator = copy(operator)  # any other object: what the state was of is not at hand
            then = self._read(Damped(operator, block.earlier.damping), block.earlier)
            return _State(self._solver.init_from(block.path[self._order[0]], then.value))
        # Where a job asked for a start that is gone, its states are not what its key stands for.
        return _State(next(made), new=not self._shelf.has_earlier)

    def _read(self, damped: Damped, kept: KeptState) -> _State:
        assert isinstance(self._solver, Reusable)
        return _State(self._solver.load(damped, kept.state), new=False)

    def _solve_path(self, block: _Prepared, state: _State) -> None:
        """The block at every value of the path, from the largest down, each from the state of the one before."""
        columns = block.block.columns
        rhs_PK = block.curvature.to_rhs(self.grad_QP[:, columns])
        for step, place in enumerate(self._order):
            damped, value = block.path[place], self.values[place]
            if step:
                state = self._next_state(block, place, state)
            solution = solve(damped, rhs_PK, self._solver, state=state.value)
            _check_usable(block, solution)
            if state.new and isinstance(self._solver, Reusable):
                self._shelf.keep_state(block.index, damped.damping, self._solver.save(state.value), place)
            value.diagnostics.append(describe(block.block.shape, damped, solution, block.spectrum))
            value.ihvp_QP[:, columns] = block.curvature.from_rhs(solution.x_PK)
            if value.self_influence_N is not None:
                chunks = self._train.block(columns)
                value.self_influence_N.add_(self_influence(chunks, block.curvature, self._solver, state.value))

    def _next_state(self, block: _Prepared, place: int, state: _State) -> _State:
        damped, kept = block.path[place], self._shelf.state(block.index, place)
        if kept is not None:
            return self._read(damped, kept)
        if isinstance(self._solver, WarmStarting):
            return _State(self._solver.init_from(damped, state.value))
        return _State(self._solver.init(damped))

    def _take_top_out(self, block: _Prepared) -> None:
        role = self._spec.output.role_of_inverse
        if role is None or self.without_top_QP is None:
            return
        generator = Generator().manual_seed(self._spec.seed)
        directions_Pk = top_directions(block.curvature.operator, role.top_directions, generator)
        rhs_PK = block.curvature.to_rhs(self.grad_QP[:, block.block.columns])
        self.without_top_QP[:, block.block.columns] = block.curvature.from_rhs(without(directions_Pk, rhs_PK))


def _check_usable(block: _Prepared, solution: Solution[Any]) -> None:
    if solution.status in NO_SCORES:
        raise SolveFailed(f"{block.block.shape.name}: {solution.status.value}. {solution.status.advice}")
