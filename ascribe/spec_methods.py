"""The numerics of a job in its spec: which matrix, how much damping, which solver, and what goes with what."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StrictFloat, StrictInt, StringConstraints, Tag, model_validator
from pydantic_core import PydanticCustomError

from ascribe.spec_inputs import Part

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Gfim(Part):
    """HyperINF's generalized Fisher information, one D x D factor a matrix: mean(G^T G) / R."""

    kind: Literal["gfim"]


class GfimUnnormalized(Part):
    """The same without the 1/R, as HyperINF's released code computes it."""

    kind: Literal["gfim_unnormalized"]


class EmpiricalFisher(Part):
    """Mean of g g^T with the true labels, one block a tensor."""

    kind: Literal["empirical_fisher"]


class GaussNewton(Part):
    """The Gauss-Newton Hessian of all selected parameters at once, exact softmax part, no label sampling."""

    kind: Literal["gauss_newton"]
    form: Literal["auto", "rows", "products"] = Field(
        default="auto",
        description="'rows' caches classes - 1 rows an example whose outer products sum to the matrix; 'products' runs "
        "the model forward and back for every product; 'auto' takes rows where they fit the worker's limit.",
    )


class Kfac(Part):
    """Kronecker factors of the Fisher matrix, labels drawn from the model: one pair of factors a tensor."""

    kind: Literal["kfac"]


class Ekfac(Part):
    """K-FAC's eigenvectors with eigenvalues measured on per-example gradients."""

    kind: Literal["ekfac"]


class NoCurvature(Part):
    """The identity: scores are plain gradient products."""

    kind: Literal["none"]


AnyCurvature = Gfim | GfimUnnormalized | EmpiricalFisher | GaussNewton | Kfac | Ekfac | NoCurvature
Curvature = Annotated[AnyCurvature, Field(discriminator="kind")]

Tolerance = Annotated[StrictFloat, Field(ge=1e-16, lt=1, description="Relative residual to reach.")]
StepSize = Literal["auto"] | Annotated[StrictFloat, Field(ge=1e-30, le=1e30)]
Count = Literal["auto"] | Annotated[StrictInt, Field(ge=1)]


class SchulzSolver(Part):
    """Schulz iteration X <- X (2I - A X), Chebyshev-scaled; or as HyperINF's released code runs it."""

    kind: Literal["schulz"]
    tolerance: Tolerance = 1e-6
    start: Literal["chebyshev", "published"] = Field(
        default="chebyshev", description="'published' reproduces the released code, hidden damping included."
    )
    iterations: StrictInt | None = Field(
        default=None, ge=1, le=200, description="Steps of the published start (30 there); not an option of 'chebyshev'."
    )
    precision: Literal["auto", "float64", "float32", "tfloat32", "bfloat16"] = Field(
        default="auto",
        description="Of the early steps of 'chebyshev'; the last are float64 whatever this is, and where the measured "
        "error says that too little was left to correct, all are taken again in float64, with a warning.",
    )
    warm_start: Sha256 | None = Field(
        default=None,
        description="The `solution_fingerprint` in an earlier job's provenance: the inverses it left on the worker are "
        "where the iteration starts, after a few rows were added, say. Worth it where the matrix has changed little.",
    )

    @model_validator(mode="after")
    def _options_belong_to_the_start(self) -> Self:
        if self.iterations is not None and self.start != "published":
            raise PydanticCustomError(
                "iterations_not_an_option", "the number of 'chebyshev' steps follows from the tolerance; leave it out"
            )
        if self.start == "published" and (self.warm_start is not None or self.precision != "auto"):
            raise PydanticCustomError(
                "published_as_it_is", "the published start and precision are fixed; leave warm_start and precision out"
            )
        return self


class CholeskySolver(Part):
    """Exact, by factorisation in float64."""

    kind: Literal["cholesky"]


class DataInfSolver(Part):
    """DataInf's closed form: the mean of the inverses in place of the inverse of the mean."""

    kind: Literal["datainf"]


class CgSolver(Part):
    """Conjugate gradients, preconditioned by a Nystrom sketch of the matrix."""

    kind: Literal["cg"]
    tolerance: Tolerance = 1e-6
    max_iterations: StrictInt = Field(default=1000, ge=1, le=100_000)
    preconditioner_rank: Literal["auto"] | Annotated[StrictInt, Field(ge=0, le=4096)] = Field(
        default="auto", description="Columns of the sketch; 0 goes without."
    )


class _Stochastic(Part):
    """What the two stochastic iterations share."""

    tolerance: Tolerance = 1e-2
    step_size: StepSize = "auto"
    batch_size: Count = "auto"
    steps: Count = "auto"
    max_steps: StrictInt = Field(
        default=5000, ge=1, le=1_000_000, description="A plan that needs more fails before it starts."
    )

    @model_validator(mode="after")
    def _steps_within_the_limit(self) -> Self:
        if self.steps != "auto" and self.steps > self.max_steps:
            raise PydanticCustomError("steps_over_limit", "steps is over max_steps: lower it, or raise max_steps")
        return self


class LissaSolver(_Stochastic):
    """Stochastic Neumann iteration with step size, batch and steps chosen from the spectrum."""

    kind: Literal["lissa"]


class AstraSolver(_Stochastic):
    """Stochastic Neumann iteration preconditioned by EK-FAC: far fewer steps at weak damping."""

    kind: Literal["astra"]


class EigenbasisSolver(Part):
    """Exact in the eigenbasis that the curvature brings."""

    kind: Literal["eigenbasis"]


class IdentitySolver(Part):
    """No inverse at all."""

    kind: Literal["identity"]


class AutoSolver(Part):
    """The solver that a cost model expects to reach the tolerance first; the result says which and why."""

    kind: Literal["auto"]
    tolerance: Annotated[StrictFloat, Field(ge=1e-8, lt=1, description="Relative residual to reach.")] = 1e-6
    """Not below what an exact solver is judged by."""


NamedSolver = (
    SchulzSolver
    | CholeskySolver
    | DataInfSolver
    | CgSolver
    | LissaSolver
    | AstraSolver
    | EigenbasisSolver
    | IdentitySolver
)
AnySolver = NamedSolver | AutoSolver
Solver = Annotated[AnySolver, Field(discriminator="kind")]

PAIRS: dict[str, tuple[str, ...]] = {
    "gfim": ("schulz", "cholesky", "cg", "auto"),
    "gfim_unnormalized": ("schulz", "cholesky", "cg", "auto"),
    "empirical_fisher": ("cholesky", "datainf", "lissa", "cg", "auto"),
    "gauss_newton": ("cholesky", "cg", "lissa", "astra", "auto"),
    "kfac": ("eigenbasis", "auto"),
    "ekfac": ("eigenbasis", "auto"),
    "none": ("identity", "auto"),
}
"""Which solvers go with which curvature: the one table behind the 422, ``GET /v1/methods`` and the registry."""

DampingFactor = Annotated[StrictFloat, Field(ge=1e-30, le=1e30)]
"""Positive; the bounds only keep arithmetic with it finite."""
DampingPath = Annotated[tuple[DampingFactor, ...], Field(min_length=1, max_length=16)]
DampingFactors = DampingFactor | DampingPath

FORMS = ("relative", "relative_to_largest", "absolute")


class _Damping(Part):
    """One factor, or a path of them: the first is the job's main result, the others stand beside it."""

    @property
    def form(self) -> str:
        (name,) = type(self).model_fields
        return name

    @property
    def factors(self) -> tuple[float, ...]:
        value: float | tuple[float, ...] = getattr(self, self.form)
        return value if isinstance(value, tuple) else (value,)

    @model_validator(mode="after")
    def _factors_differ(self) -> Self:
        if len(set(self.factors)) < len(self.factors):
            raise PydanticCustomError("duplicate_damping", "each value of the path must be another one")
        return self


class RelativeDamping(_Damping):
    """Times the mean squared gradient entry of the block, whatever the curvature (as DataInf)."""

    relative: DampingFactors


class RelativeToLargestDamping(_Damping):
    """Times the largest eigenvalue of the block's curvature."""

    relative_to_largest: DampingFactors


class AbsoluteDamping(_Damping):
    """The same value for every block."""

    absolute: DampingFactors


def _damping_form(value: Any) -> str | None:
    if isinstance(value, dict):
        present = [name for name in FORMS if name in value]
        return present[0] if len(present) == 1 else None
    return next((name for name in FORMS if hasattr(value, name)), None)


AnyDamping = RelativeDamping | RelativeToLargestDamping | AbsoluteDamping
Damping = Annotated[
    Annotated[RelativeDamping, Tag("relative")]
    | Annotated[RelativeToLargestDamping, Tag("relative_to_largest")]
    | Annotated[AbsoluteDamping, Tag("absolute")],
    Discriminator(
        _damping_form,
        custom_error_type="damping_form",
        custom_error_message="give exactly one of 'relative', 'relative_to_largest', 'absolute'",
    ),
]


def default_damping(curvature: str, solver: str) -> AnyDamping | None:
    """Damping where the caller gives none; None where there is nothing to damp.

    The mean eigenvalue itself where the curvature comes from the gradients of the given labels: these are noisy, and a
    tenth of it (DataInf's, HyperINF's) ranked wrong labels worse on every data set tried (ADR 14). On the Gauss-Newton
    Hessian of all parameters at once, and for LiSSA, 1/200 of the largest eigenvalue, within what the settings that are
    published for LiSSA amount to (1/75 to 1/1000; Klochkov & Liu, arXiv 2409.17357). ASTRA has four times that: EK-FAC
    worsens the condition of real adapters, and at 1/200 its plan is longer than ``max_steps`` (ADR 11).
    """
    if curvature == "none":
        return None
    if solver == "astra":
        return RelativeToLargestDamping(relative_to_largest=0.02)
    if curvature == "gauss_newton" or solver == "lissa":
        return RelativeToLargestDamping(relative_to_largest=0.005)
    if curvature in ("kfac", "ekfac") or solver == "datainf":
        return RelativeDamping(relative=0.1)
    return RelativeDamping(relative=1.0)


def smallest_factor(tolerance: float, max_steps: int) -> float | None:
    """The smallest ``relative_to_largest`` damping LiSSA solves in so many steps, rounded up; or None."""
    contraction = math.log(1 / tolerance) / max_steps
    if contraction >= 1:
        return None
    # Two digits rounded up: what a message names must itself be accepted.
    smallest = contraction / (1 - contraction)
    unit = 10.0 ** (math.floor(math.log10(smallest)) - 1)
    return math.ceil(smallest / unit) * unit
