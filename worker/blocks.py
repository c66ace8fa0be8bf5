"""Curvature, damping and solve of every block, and what each of them reports.

All blocks are checked before the first is solved: a plan that one block cannot afford fails the job at once.
What an earlier job left of a block is taken in place of computing it, see :mod:`worker.reuse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Generator, Tensor

from ascribe.errors import SolveFailed
from ascribe.job import Phase
from ascribe.result import BlockDiagnostics, Reuse
from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import Damping, JobSpec
from ascribe.status import SolveStatus
from ascribe.store import Store
from worker.curvature.block import CurvatureBlock
from worker.damping import resolve_damping
from worker.gradients.cache import Gradients
from worker.operators import Damped
from worker.progress import Reporter
from worker.registry import build_solver
from worker.reuse import KeptState, Shelf, open_shelf
from worker.scores.self_influence import self_influence
from worker.solvers.base import Reusable, Solver
from worker.solvers.solve import Solution, solve

NO_SCORES = (SolveStatus.DIVERGED, SolveStatus.NON_FINITE, SolveStatus.NOT_POSITIVE_DEFINITE)


@dataclass(frozen=True, slots=True)
class SolvedBlocks:
    """``ihvp_QP`` float64: one row a validation row where asked for, their mean last."""

    ihvp_QP: Tensor
    self_influence_N: Tensor | None
    diagnostics: tuple[BlockDiagnostics, ...]
    reused: Mapping[str, Reuse]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A block ready to be solved. ``damped`` is None where all its gradients are zero.

    ``kept`` is the solver's state as an earlier job left it: views into a file, read when the block is solved.
    """

    shape: BlockShape
    columns: slice
    curvature: CurvatureBlock
    damped: Damped | None
    kept: KeptState | None


def solve_blocks(
    spec: JobSpec,
    shapes: Sequence[BlockShape],
    train: Gradients,
    validation: Gradients,
    reporter: Reporter,
    *,
    store: Store,
    gradient_fingerprint: str,
) -> SolvedBlocks:
    """Solve ``(C + damping I) x = g_q`` in every block for every validation gradient, or for their mean alone.

    ``gradient_fingerprint`` is that of ``train``: what is kept of its curvature is found and left under it.

    Raises:
        NonFinite: a curvature is not finite.
        PlanExceedsSteps, LimitExceeded: from the solver's check, before anything is solved.
        SolveFailed: a block ended without a usable solution.
        StorageFailed: an entry of the store cannot be made.
    """
    solver = build_solver(spec)
    with open_shelf(store, spec, solver, gradient_fingerprint=gradient_fingerprint, blocks=len(shapes)) as shelf:
        with reporter.phase(Phase.BUILDING_CURVATURE, len(shapes)):
            prepared = _prepare(spec, shapes, train, solver, shelf, reporter)
        with reporter.phase(Phase.SOLVING, len(shapes)):
            return _solve_all(spec, prepared, train, validation, solver, shelf, reporter)


def _solve_all(
    spec: JobSpec,
    prepared: Sequence[_Prepared],
    train: Gradients,
    validation: Gradients,
    solver: Solver[Any],
    shelf: Shelf,
    reporter: Reporter,
) -> SolvedBlocks:
    grad_QP = _right_hand_sides(spec, validation)
    ihvp_QP = torch.zeros(grad_QP.shape, dtype=torch.float64)
    self_influence_N = torch.zeros(train.rows, dtype=torch.float64) if spec.output.self_influence else None
    diagnostics = []
    for index, block in enumerate(prepared):
        if block.damped is None:
            diagnostics.append(_zero_block(block.shape))
        else:
            solution = _solve(index, block, block.damped, grad_QP, solver, shelf)
            _check_usable(block, solution)
            diagnostics.append(_describe(block, solution))
            ihvp_QP[:, block.columns] = block.curvature.from_rhs(solution.x_PK)
            if self_influence_N is not None:
                self_influence_N += self_influence(train.block(block.columns), block.curvature, solver, solution.state)
        reporter.advance()
    return SolvedBlocks(
        ihvp_QP, self_influence_N, tuple(diagnostics), shelf.reused(), (*_warnings(diagnostics), *shelf.warnings())
    )


def _solve(
    index: int, block: _Prepared, damped: Damped, grad_QP: Tensor, solver: Solver[Any], shelf: Shelf
) -> Solution[Any]:
    """One block's solution, from a kept state where there is one; a new state is kept if it solved anything."""
    rhs_PK = block.curvature.to_rhs(grad_QP[:, block.columns])
    if not isinstance(solver, Reusable):
        return solve(damped, rhs_PK, solver)
    state = None if block.kept is None else solver.load(damped, block.kept.state)
    solution = solve(damped, rhs_PK, solver, state=state)
    if state is None and solution.status not in NO_SCORES:
        shelf.keep_state(index, KeptState(damped.damping, solver.save(solution.state)))
    return solution


def _right_hand_sides(spec: JobSpec, validation: Gradients) -> Tensor:
    """Validation gradients where asked for, and their mean last, solved and measured like them."""
    mean_P = torch.stack([shard.sum(0, dtype=torch.float64) for shard in validation.shards]).sum(0) / validation.rows
    mean_1P = mean_P.unsqueeze(0)
    if not spec.output.per_validation_row:
        return mean_1P
    return torch.cat([torch.cat(validation.shards).double(), mean_1P])


def _prepare(
    spec: JobSpec, shapes: Sequence[BlockShape], train: Gradients, solver: Solver[Any], shelf: Shelf, reporter: Reporter
) -> list[_Prepared]:
    stops = list(accumulate(shape.size for shape in shapes))
    prepared = []
    for index, (shape, stop) in enumerate(zip(shapes, stops, strict=True)):
        columns = slice(stop - shape.size, stop)
        curvature = shelf.curvature(index, shape, spec.curvature.kind, train.block(columns))
        damped = kept = None
        if not curvature.is_zero:
            kept = shelf.state(index)
            damping = _damping(curvature, spec.damping, spec.seed) if kept is None else kept.damping
            damped = Damped(curvature.operator, damping)
            if kept is None:  # otherwise the job that left it had it checked
                solver.check(damped)
        prepared.append(_Prepared(shape, columns, curvature, damped, kept))
        reporter.advance()
    return prepared


def _damping(block: CurvatureBlock, damping: Damping | None, seed: int) -> float:
    if damping is None:  # curvature 'none'
        return 0.0
    ((kind, value),) = damping.model_dump().items()
    # A generator for each block: what one block draws must not depend on which others were kept.
    return resolve_damping(block, kind, value, Generator().manual_seed(seed))


def _describe(block: _Prepared, solution: Solution[Any]) -> BlockDiagnostics:
    assert block.damped is not None
    stats = solution.stats
    return BlockDiagnostics(
        name=block.shape.name,
        rank=block.shape.rank,
        long_side=block.shape.long_side,
        status=solution.status,
        damping=block.damped.damping or None,
        condition_bound=stats.condition_bound,
        relative_residual=float(solution.relative_residual_K.max()),
        iterations=stats.iterations,
        products=stats.products,
        precision=stats.precision,
        plan=None if stats.plan is None else dict(stats.plan),
        notes=stats.notes,
    )


def _check_usable(block: _Prepared, solution: Solution[Any]) -> None:
    if solution.status in NO_SCORES:
        raise SolveFailed(f"{block.shape.name}: {solution.status.value}. {solution.status.advice}")


def _zero_block(shape: BlockShape) -> BlockDiagnostics:
    return BlockDiagnostics(
        name=shape.name,
        rank=shape.rank,
        long_side=shape.long_side,
        status=SolveStatus.CONVERGED,
        damping=None,
        condition_bound=None,
        relative_residual=0.0,
        iterations=0,
        products=0,
        precision="float64",
        notes=("every train gradient of this block is zero: it adds nothing to the scores",),
    )


def _warnings(blocks: Sequence[BlockDiagnostics]) -> tuple[str, ...]:
    """Each note once, with the blocks it was said of."""
    said: dict[str, list[str]] = {}
    for block in blocks:
        for note in block.notes:
            said.setdefault(note, []).append(block.name)
    return tuple(
        f"{note} ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})" for note, names in said.items()
    )
