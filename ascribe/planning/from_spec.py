"""From a spec to the problem that is weighed, and from the plan back to a spec that names its solver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import TypeAdapter

from ascribe.planning.choose import Plan
from ascribe.planning.problem import DampingForm, Problem
from ascribe.result import Candidate, Choice
from ascribe.settings import Settings
from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import AutoSolver, GaussNewton, JobSpec, NamedSolver

_TOLERANCE = 1e-6
"""Where the solver that is named has none: what ``auto`` asks for."""


def problem_of(
    spec: JobSpec,
    shapes: Sequence[BlockShape],
    *,
    train_rows: int,
    questions: int,
    classes: int,
    settings: Settings,
) -> Problem:
    """``questions``: validation rows, and their tokens where those are scored. Of a damping path the smallest value is
    weighed: it costs the most."""
    damping = None
    if spec.damping is not None:
        damping = (cast(DampingForm, spec.damping.form), min(spec.damping.factors))
    return Problem(
        curvature=spec.curvature.kind,
        blocks=tuple(shapes),
        train_rows=train_rows,
        columns=questions + 1 if spec.output.per_validation_row else 1,
        classes=classes,
        damping=damping,
        tolerance=getattr(spec.solver, "tolerance", _TOLERANCE),
        self_influence=spec.output.self_influence,
        rows_cached=caches_rows(spec, shapes, train_rows=train_rows, classes=classes, settings=settings),
        memory_bytes=settings.max_solve_bytes,
    )


def caches_rows(
    spec: JobSpec, shapes: Sequence[BlockShape], *, train_rows: int, classes: int, settings: Settings
) -> bool:
    """Whether a Gauss-Newton Hessian is made of cached rows; every other curvature is."""
    if not isinstance(spec.curvature, GaussNewton) or spec.curvature.form == "rows" or spec.parameters.projection:
        return True
    needed = gauss_newton_bytes(shapes, train_rows=train_rows, classes=classes)
    return spec.curvature.form == "auto" and needed <= settings.max_gauss_newton_bytes


def gauss_newton_bytes(shapes: Sequence[BlockShape], *, train_rows: int, classes: int) -> int:
    """Of the rows that a Gauss-Newton Hessian is made of."""
    return 4 * (classes - 1) * train_rows * sum(shape.size for shape in shapes)


def choice_of(plan: Plan) -> Choice:
    """The plan as the result tells it."""
    return Choice(
        pick=plan.pick,
        why=plan.why,
        seconds=plan.seconds,
        bytes=plan.bytes,
        candidates=tuple(
            Candidate(
                solver=candidate.solver,
                seconds=candidate.seconds if candidate.seconds else None,
                bytes=candidate.bytes or None,
                feasible=candidate.feasible,
                reason=candidate.reason,
            )
            for candidate in plan.candidates
        ),
    )


def with_solver(spec: JobSpec, pick: str) -> JobSpec:
    """``spec`` with the solver that was picked, to the tolerance that was asked for where the solver has one."""
    assert isinstance(spec.solver, AutoSolver)
    options: dict[str, Any] = {"kind": pick}
    if pick in ("schulz", "cg", "lissa", "astra"):
        options["tolerance"] = spec.solver.tolerance
    solver: NamedSolver = TypeAdapter[Any](NamedSolver).validate_python(options)
    return spec.model_copy(update={"solver": solver})
