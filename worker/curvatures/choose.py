"""Which curvature a spec asks for, by explicit match: a new one is one arm here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import JobSpec
from worker.curvatures.base import Curvatures, Passes
from worker.curvatures.from_gradients import FromGradients
from worker.curvatures.gauss_newton import GaussNewtonModel, GaussNewtonRows
from worker.curvatures.kronecker import Kronecker
from worker.curvatures.preconditioned import Preconditioned
from worker.gradients.cache import Gradients


def open_curvatures(
    spec: JobSpec, shapes: Sequence[BlockShape], train: Gradients, passes: Passes, *, cached_rows: bool
) -> Curvatures:
    """``cached_rows``: the form of a Gauss-Newton Hessian, see :func:`ascribe.planning.from_spec.caches_rows`."""
    match spec.curvature.kind:
        case "gfim" | "gfim_unnormalized" | "empirical_fisher" | "none" as kind:
            return FromGradients(kind, shapes, train, passes)
        case "kfac" | "ekfac" as kind:
            return Kronecker(kind, shapes, train, passes, spec.seed)
        case "gauss_newton":
            form = GaussNewtonRows if cached_rows else GaussNewtonModel
            whole = form(shapes, train, passes)
            if spec.solver.kind != "astra":
                return whole
            return Preconditioned(whole, Kronecker("ekfac", shapes, train, passes, spec.seed))
        case other:
            assert_never(other)
