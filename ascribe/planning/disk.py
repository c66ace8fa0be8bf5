"""What a job leaves in the workers' cache: gradients, curvature, and the solver's states."""

from __future__ import annotations

from ascribe.planning.costs import cg_sketch
from ascribe.planning.problem import Problem
from ascribe.sources.checkpoints import BlockShape, Checkpoint
from ascribe.spec import GaussNewton, JobSpec

SIDECAR_BYTES = 22
"""Of a row beside its gradient: its loss, in digits."""


def state_bytes(spec: JobSpec, problem: Problem) -> int:
    """Of the curvature and the solver's states."""
    blocks, rows = problem.blocks, problem.train_rows
    if spec.curvature.kind == "gauss_newton":
        blocks = (BlockShape("all", 1, sum(block.size for block in blocks)),)
    curvature = sum(_curvature(spec, block, rows) for block in blocks)
    if spec.solver.kind == "astra":
        curvature += sum(_eigenbasis(block) for block in problem.blocks)
    states = 0
    if spec.solver.kind in ("cholesky", "schulz"):
        states = sum(_side(spec, block, problem) ** 2 for block in blocks)
    elif spec.solver.kind == "cg":
        states = sum(system.size * cg_sketch(system, problem) for system in problem.systems())
    return curvature + spec.damping_count * 8 * states


def gradient_passes(spec: JobSpec, checkpoint: Checkpoint, *, cached_rows: bool) -> int:
    """Over the train rows, each of which leaves a gradient a row."""
    if spec.gradients == "recomputed":
        return 0
    if isinstance(spec.curvature, GaussNewton):
        components = checkpoint.num_labels - 1 if cached_rows else 0
        return 1 + components + (spec.solver.kind == "astra")
    return 2 if spec.curvature.kind == "ekfac" else 1


def _curvature(spec: JobSpec, block: BlockShape, train_rows: int) -> int:
    match spec.curvature.kind:
        case "gfim" | "gfim_unnormalized":
            stacked = train_rows * block.rank
            return 8 * (block.long_side**2 if stacked >= block.long_side else stacked)
        case "kfac" | "ekfac":
            return _eigenbasis(block)
        case "empirical_fisher" | "gauss_newton":
            return 8 * train_rows
        case _:
            return 0


def _eigenbasis(block: BlockShape) -> int:
    return 8 * (block.rank**2 + block.long_side**2 + block.size)


def _side(spec: JobSpec, block: BlockShape, problem: Problem) -> int:
    """Of the factor or the inverse, which is of the smaller of two systems."""
    match spec.curvature.kind:
        case "gfim" | "gfim_unnormalized":
            return min(block.long_side, problem.train_rows * block.rank)
        case "gauss_newton":
            return min(block.size, problem.train_rows * (problem.classes - 1))
        case _:
            return min(block.size, problem.train_rows)
