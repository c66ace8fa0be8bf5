"""What a solve reports of itself: a block's diagnostics, and the warnings of all blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator

from ascribe.result import BlockDiagnostics, Spectrum
from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import JobSpec
from ascribe.status import SolveStatus
from worker.curvature.block import CurvatureBlock
from worker.operators import Damped
from worker.solvers.solve import Solution
from worker.spectrum import measure


def measured(curvature: CurvatureBlock, spec: JobSpec) -> Spectrum:
    """The block's spectrum, before damping."""
    found = measure(curvature.operator, Generator().manual_seed(spec.seed))
    return Spectrum(
        trace=found.trace,
        trace_standard_error=found.trace_standard_error,
        largest=found.largest,
        largest_residual=found.largest_residual,
        top=found.top_values,
        top_error=found.top_error,
        batch_variance=found.batch_variance,
        batch_size=found.batch_size,
        products=found.products,
    )


def describe(
    shape: BlockShape, damped: Damped, solution: Solution[Any], spectrum: Spectrum | None = None
) -> BlockDiagnostics:
    """One block's solve at one damping."""
    stats = solution.stats
    return BlockDiagnostics(
        name=shape.name,
        rank=shape.rank,
        long_side=shape.long_side,
        status=solution.status,
        damping=damped.damping or None,
        condition_bound=stats.condition_bound,
        relative_residual=float(solution.relative_residual_K.max()),
        iterations=stats.iterations,
        products=stats.products,
        precision=stats.precision,
        plan=None if stats.plan is None else dict(stats.plan),
        spectrum=spectrum,
        notes=stats.notes,
    )


def zero_block(shape: BlockShape) -> BlockDiagnostics:
    """A block with nothing to solve."""
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


@dataclass(frozen=True, slots=True)
class Worst:
    """Of several blocks: the worst status, residual and condition, the most iterations, and all their products."""

    status: SolveStatus
    relative_residual: float
    condition_bound: float | None
    iterations: int
    products: float


def worst_of(blocks: Sequence[BlockDiagnostics]) -> Worst:
    bounds = [block.condition_bound for block in blocks if block.condition_bound]
    return Worst(
        status=max((block.status for block in blocks), key=lambda status: status.severity),
        relative_residual=max(block.relative_residual for block in blocks),
        condition_bound=max(bounds) if bounds else None,
        iterations=max(block.iterations for block in blocks),
        products=sum(block.products for block in blocks),
    )


def warnings_of(blocks: Sequence[BlockDiagnostics]) -> tuple[str, ...]:
    """Each note once, with the blocks it was said of."""
    said: dict[str, dict[str, None]] = {}  # a block may say it at every damping of a path
    for block in blocks:
        for note in block.notes:
            said.setdefault(note, {})[block.name] = None
    return tuple(
        f"{note} ({next(iter(names))}{f' and {len(names) - 1} more' if len(names) > 1 else ''})"
        for note, names in said.items()
    )
