"""Describes every method from the spec's own models, so that a new variant appears here by itself."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from ascribe.result import SIGN
from ascribe.spec import PAIRS, Curvature, Damping, Solver, default_damping
from service.methods.schemas import CurvatureMethod, Methods, Pair, SolverMethod

APPROXIMATE = frozenset({"datainf", "lissa", "astra", "eigenbasis"})
"""Solvers whose answer is an approximation by design, however well it went."""

_WHEN = {
    "gfim": "The default for LoRA adapters: one small factor a matrix, as the HyperINF paper defines it.",
    "gfim_unnormalized": "To compare with numbers from HyperINF's released code, which leaves out the 1/R.",
    "empirical_fisher": "To compare with DataInf and LiSSA, or for the full block of every tensor.",
    "gauss_newton": "The matrix that influence functions mean: it couples all parameters and is checked by PBRF.",
    "kfac": "A cheaper stand-in for the Gauss-Newton Hessian, to compare with other libraries.",
    "ekfac": "The Gauss-Newton Hessian where nothing can be iterated: two passes and a closed form.",
    "none": "A quick baseline: is curvature worth its cost on this data?",
    "schulz": "When only matrix products are fast (accelerators), or to reproduce HyperINF.",
    "auto": "When in doubt: a cost model picks the fastest solver that reaches the tolerance, and says why.",
    "cg": "Any damping on any curvature, also where no matrix fits in memory.",
    "astra": "The Gauss-Newton Hessian at weak damping, where LiSSA would need too many steps.",
    "eigenbasis": "With curvatures 'kfac' and 'ekfac'.",
    "cholesky": "Exact, and the reference the others are measured against.",
    "datainf": "Very large train sets, where one pass over the gradients must do.",
    "lissa": "To compare with published LiSSA numbers; needs strong damping to end in bounded time.",
    "identity": "With curvature 'none'.",
}
_NOTES = {
    ("gfim", "schulz"): "HyperINF: inverts the D x D factor of each matrix by the Schulz iteration.",
    ("gfim", "cholesky"): "HyperINF's curvature, inverted exactly.",
    ("gfim_unnormalized", "schulz"): "HyperINF as its released code computes it.",
    ("gfim_unnormalized", "cholesky"): "The released code's curvature, inverted exactly.",
    ("empirical_fisher", "cholesky"): "Exact block-diagonal influence, through the smaller of Gram matrix and block.",
    ("empirical_fisher", "datainf"): "DataInf: the mean of the inverses in place of the inverse of the mean.",
    ("empirical_fisher", "lissa"): "LiSSA on cached gradients, planned from the spectrum.",
    ("gfim", "cg"): "HyperINF's curvature, by conjugate gradients.",
    ("gfim_unnormalized", "cg"): "The released code's curvature, by conjugate gradients.",
    ("empirical_fisher", "cg"): "Exact block-diagonal influence, by conjugate gradients on cached gradients.",
    ("gauss_newton", "cholesky"): "Exact Gauss-Newton influence through the Gram matrix of its cached rows.",
    ("gauss_newton", "cg"): "Exact Gauss-Newton influence by conjugate gradients.",
    ("gauss_newton", "lissa"): "LiSSA on the Gauss-Newton Hessian, planned from its spectrum (Klochkov & Liu).",
    ("gauss_newton", "astra"): "LiSSA on the Gauss-Newton Hessian preconditioned by EK-FAC (ASTRA).",
    ("kfac", "eigenbasis"): "K-FAC influence: exact in the basis of its Kronecker factors.",
    ("ekfac", "eigenbasis"): "EK-FAC influence: K-FAC's basis, measured eigenvalues.",
    ("none", "identity"): "Plain products of gradients.",
}


@cache
def describe() -> Methods:
    """All curvatures, solvers and pairs; made once, for it depends on the code alone."""
    return Methods(
        sign=SIGN,
        curvatures=tuple(_curvature(variant) for variant in variants(Curvature)),
        solvers=tuple(_solver(variant) for variant in variants(Solver)),
        pairs=tuple(
            Pair(
                curvature=curvature,
                solver=solver,
                note=note_of(curvature, solver),
                default_damping=default_damping(curvature, solver),
            )
            for curvature, solvers in PAIRS.items()
            for solver in solvers
        ),
        damping=TypeAdapter[Any](Damping).json_schema(),
    )


def note_of(curvature: str, solver: str) -> str:
    if solver == "auto":
        return "The solver that is predicted to reach the tolerance first."
    return _NOTES[curvature, solver]


def variants(union: Any) -> tuple[type[BaseModel], ...]:
    """The classes of an annotated union."""
    return get_args(get_args(union)[0])


def _kind(variant: type[BaseModel]) -> str:
    (kind,) = get_args(variant.model_fields["kind"].annotation)
    return str(kind)


def _curvature(variant: type[BaseModel]) -> CurvatureMethod:
    kind = _kind(variant)
    return CurvatureMethod(
        kind=kind,
        summary=inspect.getdoc(variant) or "",
        when=_WHEN[kind],
        solvers=PAIRS[kind],
        options=variant.model_json_schema(),
    )


def _solver(variant: type[BaseModel]) -> SolverMethod:
    kind = _kind(variant)
    return SolverMethod(
        kind=kind,
        summary=inspect.getdoc(variant) or "",
        when=_WHEN[kind],
        curvatures=tuple(curvature for curvature, solvers in PAIRS.items() if kind in solvers),
        exact=kind not in APPROXIMATE,
        options=variant.model_json_schema(),
    )
