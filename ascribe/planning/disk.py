"""What a job leaves in the workers' cache: gradients, curvature, and the solver's states."""

from __future__ import annotations

from ascribe.sources.checkpoints import BlockShape, Checkpoint
from ascribe.spec import GaussNewton, JobSpec

SIDECAR_BYTES = 22
"""Of a row beside its gradient: its loss, in digits."""


def state_bytes(spec: JobSpec, checkpoint: Checkpoint, train_rows: int, *, cached_rows: bool) -> int:
    """Of the curvature and the solver's states. ``cached_rows``: see :func:`ascribe.planning.from_spec.caches_rows`."""
    blocks = checkpoint.blocks
    if spec.curvature.kind == "gauss_newton":
        blocks = (BlockShape("all", 1, checkpoint.parameters),)
    curvature = sum(_curvature(spec, block, train_rows) for block in blocks)
    states = sum(_state(spec, block, train_rows, checkpoint.num_labels) for block in blocks)
    if spec.solver.kind == "astra":
        curvature += sum(_eigenbasis(block) for block in checkpoint.blocks)
    return curvature + spec.damping_count * states


def gradient_passes(spec: JobSpec, checkpoint: Checkpoint, *, cached_rows: bool) -> int:
    """Over the train rows, each of which leaves a gradient a row."""
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


def _state(spec: JobSpec, block: BlockShape, train_rows: int, classes: int) -> int:
    """A factor or an inverse, of the smaller side; what other solvers keep is a plan of a few numbers."""
    if spec.solver.kind not in ("cholesky", "schulz"):
        return 0
    match spec.curvature.kind:
        case "gfim" | "gfim_unnormalized":
            side = min(block.long_side, train_rows * block.rank)
        case "gauss_newton":
            side = min(block.size, train_rows * (classes - 1))
        case _:
            side = min(block.size, train_rows)
    return 8 * side**2
