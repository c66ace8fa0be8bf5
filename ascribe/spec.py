"""The job spec: what a caller asks for, checked once, frozen for good.

Everything that the fields alone can prove wrong is refused here, so the service answers 422 at submit and no
layer below checks again. What only a file, a checkpoint or the data can show is checked where it is read.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ascribe.lissa_bound import minimum_steps
from ascribe.spec_inputs import (
    DATASET_ID_PATTERN,
    Columns,
    DatasetSource,
    DatasetSpec,
    FileSource,
    InlineRow,
    InlineSource,
    ModelSpec,
    ParametersSpec,
    Part,
    ShortText,
)

__all__ = [
    "DATASET_ID_PATTERN",
    "JOB_ID_PATTERN",
    "PAIRS",
    "CholeskySolver",
    "Columns",
    "Curvature",
    "Damping",
    "DataInfSolver",
    "DatasetSource",
    "DatasetSpec",
    "FileSource",
    "IdentitySolver",
    "InlineRow",
    "InlineSource",
    "JobSpec",
    "LabelKey",
    "LabelValue",
    "LissaSolver",
    "ModelSpec",
    "OutputSpec",
    "ParametersSpec",
    "Part",
    "QueryOf",
    "SchulzSolver",
    "ShortText",
    "Solver",
    "default_damping",
]

LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=255)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
JOB_ID_PATTERN = r"^job_[0-9a-f]{32}$"


class Gfim(Part):
    """HyperINF's generalized Fisher information, one D x D factor a matrix: mean(G^T G) / R."""

    kind: Literal["gfim"]


class GfimUnnormalized(Part):
    """The same without the 1/R, as HyperINF's released code computes it."""

    kind: Literal["gfim_unnormalized"]


class EmpiricalFisher(Part):
    """Mean of g g^T with the true labels, one block a tensor."""

    kind: Literal["empirical_fisher"]


class NoCurvature(Part):
    """The identity: scores are plain gradient products."""

    kind: Literal["none"]


Curvature = Annotated[Gfim | GfimUnnormalized | EmpiricalFisher | NoCurvature, Field(discriminator="kind")]

Tolerance = Annotated[StrictFloat, Field(ge=1e-16, lt=1, description="Relative residual to reach.")]


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

    @model_validator(mode="after")
    def _iterations_belong_to_published(self) -> Self:
        if self.iterations is not None and self.start != "published":
            raise PydanticCustomError(
                "iterations_not_an_option", "the number of 'chebyshev' steps follows from the tolerance; leave it out"
            )
        return self


class CholeskySolver(Part):
    """Exact, by factorisation in float64."""

    kind: Literal["cholesky"]


class DataInfSolver(Part):
    """DataInf's closed form: the mean of the inverses in place of the inverse of the mean."""

    kind: Literal["datainf"]


class LissaSolver(Part):
    """Stochastic Neumann iteration with step size, batch and steps chosen from the spectrum."""

    kind: Literal["lissa"]
    tolerance: Tolerance = 1e-2
    step_size: Literal["auto"] | Annotated[StrictFloat, Field(ge=1e-30, le=1e30)] = "auto"
    batch_size: Literal["auto"] | Annotated[StrictInt, Field(ge=1)] = "auto"
    steps: Literal["auto"] | Annotated[StrictInt, Field(ge=1)] = "auto"
    max_steps: StrictInt = Field(
        default=5000, ge=1, le=1_000_000, description="A plan that needs more fails before it starts."
    )

    @model_validator(mode="after")
    def _steps_within_the_limit(self) -> Self:
        if self.steps != "auto" and self.steps > self.max_steps:
            raise PydanticCustomError("steps_over_limit", "steps is over max_steps: lower it, or raise max_steps")
        return self


class IdentitySolver(Part):
    """No inverse at all."""

    kind: Literal["identity"]


Solver = Annotated[
    SchulzSolver | CholeskySolver | DataInfSolver | LissaSolver | IdentitySolver, Field(discriminator="kind")
]

PAIRS: dict[str, tuple[str, ...]] = {
    "gfim": ("schulz", "cholesky"),
    "gfim_unnormalized": ("schulz", "cholesky"),
    "empirical_fisher": ("cholesky", "datainf", "lissa"),
    "none": ("identity",),
}
"""Which solvers go with which curvature: the one table behind the 422, ``GET /v1/methods`` and the registry."""

DampingFactor = Annotated[StrictFloat, Field(ge=1e-30, le=1e30)]
"""Positive; the bounds only keep arithmetic with it finite."""


class RelativeDamping(Part):
    """Times the mean squared gradient entry of the block, whatever the curvature (as DataInf)."""

    relative: DampingFactor


class RelativeToLargestDamping(Part):
    """Times the largest eigenvalue of the block's curvature."""

    relative_to_largest: DampingFactor


class AbsoluteDamping(Part):
    """The same value for every block."""

    absolute: DampingFactor


def _damping_form(value: Any) -> str | None:
    names = ("relative", "relative_to_largest", "absolute")
    if isinstance(value, dict):
        present = [name for name in names if name in value]
        return present[0] if len(present) == 1 else None
    return next((name for name in names if hasattr(value, name)), None)


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


class OutputSpec(Part):
    per_validation_row: StrictBool = Field(default=True, description="Scores for every validation row, too.")
    self_influence: StrictBool = Field(default=False, description="The score of every train row with itself.")


class QueryOf(Part):
    """An earlier job that this one asks again, and what its train rows and its model were then.

    A worker that finds others refuses to answer.
    """

    job_id: Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]
    base_sha256: Sha256
    adapter_sha256: Sha256 | None
    train_sha256: Sha256


class JobSpec(Part):
    """One attribution job. Damping left out becomes the solver's default and is stored so."""

    name: ShortText | None = None
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=32)
    model: ModelSpec
    train: DatasetSpec
    validation: DatasetSpec
    parameters: ParametersSpec = ParametersSpec()
    curvature: Curvature
    damping: Damping | None = None
    solver: Solver
    output: OutputSpec = OutputSpec()
    seed: StrictInt = Field(default=0, ge=0, lt=2**63)
    query_of: QueryOf | None = Field(
        default=None, description="Where `POST /v1/jobs/{id}/queries` made this spec: of which job it asks more."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        allowed = PAIRS[self.curvature.kind]
        if self.solver.kind not in allowed:
            raise PydanticCustomError(
                "solver_curvature_mismatch",
                "this curvature goes with solver {allowed}",
                {"allowed": " or ".join(allowed), "pointer": "/solver/kind"},
            )
        if self.solver.kind == "identity":
            if self.damping is not None:
                raise PydanticCustomError(
                    "damping_without_curvature",
                    "solver 'identity' takes no damping: leave it null",
                    {"pointer": "/damping"},
                )
        elif self.damping is None:
            object.__setattr__(self, "damping", default_damping(self.solver))
        if isinstance(self.solver, LissaSolver):
            self._check_lissa(self.solver)
        self._check_selection()
        return self

    def _check_selection(self) -> None:
        if (self.model.adapter is None) != (self.parameters.select == "modules"):
            raise PydanticCustomError(
                "selection_without_adapter" if self.model.adapter is None else "modules_with_adapter",
                "a base without an adapter goes with select 'modules', a model with an adapter with the other two",
                {"pointer": "/parameters/select"},
            )

    def _check_lissa(self, solver: LissaSolver) -> None:
        if self.output.self_influence:
            raise PydanticCustomError(
                "self_influence_with_lissa",
                "an iterative solve for every train row is not on offer: use solver 'cholesky' or leave it out",
                {"pointer": "/output/self_influence"},
            )
        if isinstance(self.damping, RelativeToLargestDamping) and solver.steps == solver.step_size == "auto":
            steps = minimum_steps(self.damping.relative_to_largest, solver.tolerance)
            if steps > solver.max_steps:
                raise PydanticCustomError(
                    "plan_exceeds_steps",
                    "this damping needs at least {steps} steps, more than max_steps allows: {remedy}",
                    {"steps": steps, "remedy": _remedy(solver), "pointer": "/damping/relative_to_largest"},
                )


def _remedy(solver: LissaSolver) -> str:
    contraction = math.log(1 / solver.tolerance) / solver.max_steps
    if contraction >= 1:
        return "no damping is large enough, raise max_steps or the tolerance"
    # Two digits rounded up: what the message names must itself be accepted.
    smallest = contraction / (1 - contraction)
    unit = 10.0 ** (math.floor(math.log10(smallest)) - 1)
    return f"raise it to {math.ceil(smallest / unit) * unit:.2g} or more"


def default_damping(
    solver: SchulzSolver | CholeskySolver | DataInfSolver | LissaSolver | IdentitySolver,
) -> Damping | None:
    """Damping where the caller gives none: a tenth of the mean eigenvalue (DataInf), for LiSSA what it can reach."""
    if isinstance(solver, IdentitySolver):
        return None
    if isinstance(solver, LissaSolver):
        return RelativeToLargestDamping(relative_to_largest=0.01)
    return RelativeDamping(relative=0.1)
