"""The job spec: what a caller asks for, checked once, frozen for good.

Everything that the fields alone can prove wrong is refused here, so the service answers 422 at submit and no
layer below checks again. What only a file, a checkpoint or the data can show is checked where it is read.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from ascribe.lissa_bound import minimum_steps
from ascribe.spec_inputs import (
    DATASET_ID_PATTERN,
    AnyInlineRow,
    Columns,
    DatasetSource,
    DatasetSpec,
    FileSource,
    InlineCompletion,
    InlineRow,
    InlineSource,
    ModelSpec,
    ParametersSpec,
    Part,
    Projection,
    ShortText,
    Task,
)
from ascribe.spec_methods import (
    PAIRS,
    AstraSolver,
    AutoSolver,
    CgSolver,
    CholeskySolver,
    Curvature,
    Damping,
    DataInfSolver,
    EigenbasisSolver,
    GaussNewton,
    IdentitySolver,
    LissaSolver,
    NamedSolver,
    RelativeDamping,
    RelativeToLargestDamping,
    SchulzSolver,
    Sha256,
    Solver,
    default_damping,
    smallest_factor,
)

__all__ = [
    "DATASET_ID_PATTERN",
    "JOB_ID_PATTERN",
    "PAIRS",
    "AnyInlineRow",
    "AstraSolver",
    "AutoSolver",
    "CgSolver",
    "CholeskySolver",
    "Columns",
    "Curvature",
    "Damping",
    "DataInfSolver",
    "DatasetSource",
    "DatasetSpec",
    "EigenbasisSolver",
    "FileSource",
    "GaussNewton",
    "IdentitySolver",
    "InlineCompletion",
    "InlineRow",
    "InlineSource",
    "JobSpec",
    "LabelKey",
    "LabelValue",
    "LissaSolver",
    "ModelSpec",
    "NamedSolver",
    "OutputSpec",
    "ParametersSpec",
    "Part",
    "Priority",
    "Projection",
    "QueryOf",
    "Queue",
    "RelativeDamping",
    "RoleOfInverse",
    "SchulzSolver",
    "ShortText",
    "Solver",
    "Task",
    "default_damping",
]

LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=255)]
JOB_ID_PATTERN = r"^job_[0-9a-f]{32}$"
Queue = Literal["cpu", "gpu"]
Priority = Literal["low", "normal", "high"]


class RoleOfInverse(Part):
    """What the inverse does to the scores, beside two rankings without one (Klochkov & Liu, arXiv 2409.17357)."""

    top_directions: StrictInt = Field(
        default=10,
        ge=1,
        le=256,
        description="How many of the curvature's largest directions are taken out of the validation gradients.",
    )


class OutputSpec(Part):
    per_validation_row: StrictBool = Field(default=True, description="Scores for every validation row, too.")
    per_token: StrictBool = Field(
        default=False,
        description="Of a language model, also scores for every token of every validation completion; they add up to "
        "the row's.",
    )
    self_influence: StrictBool = Field(default=False, description="The score of every train row with itself.")
    spectrum: StrictBool = Field(
        default=False, description="Trace, largest eigenvalue and top spectrum of every block, drawn in the report."
    )
    role_of_inverse: RoleOfInverse | None = Field(
        default=None,
        description="Also scores by plain gradient products, and by products with the curvature's top directions taken "
        "out, with their rank agreement: what the inverse is worth here.",
    )


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
    gradients: Literal["cached", "recomputed"] = Field(
        default="cached",
        description="'recomputed' keeps no gradient of the train rows: one pass sums up the curvature, another scores. "
        "For train sets whose gradients do not fit the disk; later jobs and queries then find no gradients.",
    )
    curvature: Curvature
    damping: Damping | None = None
    solver: Solver
    output: OutputSpec = OutputSpec()
    seed: StrictInt = Field(default=0, ge=0, lt=2**63)
    queue: Queue = Field(default="cpu", description="Which workers may take the job: those that serve this queue.")
    priority: Priority = Field(
        default="normal", description="Of the jobs that wait in a queue, those of higher priority begin first."
    )
    query_of: QueryOf | None = Field(
        default=None, description="Where `POST /v1/jobs/{id}/queries` made this spec: of which job it asks more."
    )

    @property
    def damping_count(self) -> int:
        """Values of the damping path; 1 where it is one value, or none."""
        return 1 if self.damping is None else len(self.damping.factors)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        allowed = PAIRS[self.curvature.kind]
        if self.solver.kind not in allowed:
            raise PydanticCustomError(
                "solver_curvature_mismatch",
                "this curvature goes with solver {allowed}",
                {"allowed": " or ".join(allowed), "pointer": "/solver/kind"},
            )
        if self.curvature.kind == "none":
            self._check_nothing_to_invert()
        elif self.damping is None:
            object.__setattr__(self, "damping", default_damping(self.curvature.kind, self.solver.kind))
        if self.output.self_influence and self.solver.kind in ("lissa", "astra", "cg"):
            raise PydanticCustomError(
                "self_influence_with_iteration",
                "an iterative solve for every train row is not on offer: use solver 'cholesky' or leave it out",
                {"pointer": "/output/self_influence"},
            )
        if isinstance(self.solver, LissaSolver):
            self._check_lissa(self.solver)
        self._check_selection()
        self._check_task()
        self._check_projection()
        self._check_recomputed()
        return self

    def _check_recomputed(self) -> None:
        """What reads gradients many times is for cached ones: each time would be a pass of the model over all rows."""
        if self.gradients == "cached":
            return
        if self.curvature.kind not in ("gfim", "gfim_unnormalized", "none") or self.output.self_influence:
            raise PydanticCustomError(
                "many_passes",
                "recomputed gradients go with curvature gfim, gfim_unnormalized and none, and without self-influence: "
                "the others read every gradient many times",
                {"pointer": "/gradients"},
            )

    def _check_projection(self) -> None:
        """Of projected gradients there are only those: what runs the model for each product, or its factors, is not."""
        if self.parameters.projection is None:
            return
        by_model = isinstance(self.curvature, GaussNewton) and (
            self.curvature.form == "products" or self.model.task == "causal-lm" or self.solver.kind == "astra"
        )
        if by_model or self.curvature.kind in ("kfac", "ekfac"):
            raise PydanticCustomError(
                "projection_of_products",
                "projected gradients go with curvatures made of cached gradients: gfim, empirical_fisher, none, and of "
                "a classifier gauss_newton by rows",
                {"pointer": "/parameters/projection"},
            )

    def _check_task(self) -> None:
        row_form = InlineCompletion if self.model.task == "causal-lm" else InlineRow
        for name, dataset in (("train", self.train), ("validation", self.validation)):
            rows = dataset.source.rows if isinstance(dataset.source, InlineSource) else ()
            for index, row in enumerate(rows):
                if not isinstance(row, row_form):
                    raise PydanticCustomError(
                        "row_of_another_task",
                        "a row of task '{task}' has the fields {fields}",
                        {
                            "task": self.model.task,
                            "fields": " and ".join(f for f in row_form.model_fields if f not in ("id", "text_pair")),
                            "pointer": f"/{name}/source/rows/{index}",
                        },
                    )
        if self.output.per_token and not (self.model.task == "causal-lm" and self.output.per_validation_row):
            raise PydanticCustomError(
                "per_token_of_no_tokens",
                "scores per token go with task 'causal-lm' and output.per_validation_row",
                {"pointer": "/output/per_token"},
            )
        if self.model.task == "causal-lm" and isinstance(self.curvature, GaussNewton) and self.curvature.form == "rows":
            raise PydanticCustomError(
                "rows_of_a_vocabulary",
                "a language model has a class for every token of its vocabulary: use form 'products' or 'auto'",
                {"pointer": "/curvature/form"},
            )

    def _check_nothing_to_invert(self) -> None:
        if self.damping is not None:
            raise PydanticCustomError(
                "damping_without_curvature",
                "curvature 'none' takes no damping: leave it null",
                {"pointer": "/damping"},
            )
        if self.output.role_of_inverse is not None:
            raise PydanticCustomError(
                "role_without_inverse",
                "curvature 'none' has no inverse to compare: leave it null",
                {"pointer": "/output/role_of_inverse"},
            )

    def _check_selection(self) -> None:
        if (self.model.adapter is None) != (self.parameters.select == "modules"):
            raise PydanticCustomError(
                "selection_without_adapter" if self.model.adapter is None else "modules_with_adapter",
                "a base without an adapter goes with select 'modules', a model with an adapter with the other two",
                {"pointer": "/parameters/select"},
            )

    def _check_lissa(self, solver: LissaSolver) -> None:
        if not (isinstance(self.damping, RelativeToLargestDamping) and solver.steps == solver.step_size == "auto"):
            return
        steps = minimum_steps(min(self.damping.factors), solver.tolerance)
        if steps <= solver.max_steps:
            return
        smallest = smallest_factor(solver.tolerance, solver.max_steps)
        remedy = (
            "no damping is large enough, raise max_steps or the tolerance"
            if smallest is None
            else f"raise it to {smallest:.2g} or more, or use solver 'cg', or curvature 'ekfac'"
        )
        raise PydanticCustomError(
            "plan_exceeds_steps",
            "this damping needs at least {steps} steps, more than max_steps allows: {remedy}",
            {"steps": steps, "remedy": remedy, "pointer": "/damping/relative_to_largest"},
        )
