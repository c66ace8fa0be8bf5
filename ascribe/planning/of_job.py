"""A job in the planner's numbers: the same for the service, before it runs, and for the worker that runs it."""

from __future__ import annotations

from collections.abc import Sequence

from ascribe.planning.problem import DampingForm, Problem
from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import AbsoluteDamping, Damping, JobSpec, RelativeDamping, RelativeToLargestDamping


def problem_of(
    spec: JobSpec,
    shapes: Sequence[BlockShape],
    *,
    train_rows: int,
    validation_rows: int,
    classes: int,
    tolerance: float,
    rows_cached: bool = True,
    memory_bytes: int | None = None,
) -> Problem:
    """What :func:`ascribe.planning.choose.plan` takes, for ``spec`` on the parameter tensors ``shapes``."""
    return Problem(
        curvature=spec.curvature.kind,
        blocks=tuple(shapes),
        train_rows=train_rows,
        columns=validation_rows + 1 if spec.output.per_validation_row else 1,
        classes=classes,
        damping=_damping(spec.damping),
        tolerance=tolerance,
        self_influence=spec.output.self_influence,
        rows_cached=rows_cached,
        memory_bytes=memory_bytes,
    )


def _damping(damping: Damping | None) -> tuple[DampingForm, float] | None:
    match damping:
        case RelativeDamping(relative=value):
            return "relative", value
        case RelativeToLargestDamping(relative_to_largest=value):
            return "relative_to_largest", value
        case AbsoluteDamping(absolute=value):
            return "absolute", value
        case None:
            return None
