"""Bodies and queries of the job endpoints. A job itself is :class:`ascribe.job.Job`, a request its spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ascribe.job import JOB_ID_PATTERN, Job, JobState
from ascribe.result import Choice
from ascribe.spec import Curvature, Damping, Solver


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


LABEL_PREFIX = "label."


class JobsQuery(BaseModel):
    """Fields named ``label.<key>`` come as extras; any other extra is refused."""

    model_config = ConfigDict(frozen=True, extra="allow")

    status: JobState | None = Field(default=None, description="Only jobs in this state.")
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Only jobs whose base or adapter is this one."
    )
    query_of: Annotated[str, Field(pattern=JOB_ID_PATTERN)] | None = Field(
        default=None, description="Only queries of the job with this id."
    )
    after: Annotated[str, Field(max_length=100)] | None = Field(
        default=None, description="`last_id` of the page before."
    )
    limit: int = Field(default=20, ge=1, le=100)

    @model_validator(mode="after")
    def _extras_are_labels(self) -> Self:
        if not all(name.startswith(LABEL_PREFIX) for name in self.model_extra or {}):
            raise PydanticCustomError(
                "unknown_field",
                "an unknown field: there are status, model, query_of, label.<key>, after and limit",
                {"pointer": "/query"},
            )
        return self

    @property
    def labels(self) -> dict[str, str]:
        return {name.removeprefix(LABEL_PREFIX): str(value) for name, value in (self.model_extra or {}).items()}


class JobList(View):
    object: Literal["list"] = "list"
    data: tuple[Job, ...] = Field(description="Newest first.")
    has_more: bool
    first_id: str | None
    last_id: str | None


class BlockPlan(View):
    name: str
    rank: int = Field(description="R, the short side of the matrix.")
    long_side: int = Field(description="D, the long side.")


class DatasetPlan(View):
    rows: int
    gradient_bytes: int = Field(description="Disk that the gradients of all rows take in the cache, if kept.")
    cached_rows: int | None = Field(
        description="Rows whose gradients a live worker has announced, those it has evicted since among them; null "
        "where no worker is there to ask."
    )


class SolvePlan(View):
    curvature: Curvature
    damping: Damping | None = Field(description="As it will be applied, the solver's default filled in.")
    solver: Solver = Field(description="As it will run: of `auto` the solver it takes.")
    choice: Choice | None = Field(
        description="What every solver of this curvature would cost, and the one that `auto` takes. Seconds and bytes "
        "are predictions for one thread of a server, of the solve alone. Null where `auto` would take none of them."
    )
    exact: bool = Field(description="Whether the solver aims at the exact solution, or at an approximation by design.")
    note: str = Field(description="What this pair does, in a sentence.")


class MemoryPlan(View):
    """What a worker is expected to take that finds nothing of earlier jobs; measured, it is within a quarter of it."""

    peak_bytes: int = Field(description="Largest resident size, gradient files that are mapped among it.")
    needed_bytes: int = Field(description="Without those, which the system takes back where memory is short.")
    least_bytes: int = Field(description="With batches of one row: a worker with less refuses the job.")
    parts: dict[str, int] = Field(description="By what it is for; not all of it is there at once.")


class Validation(View):
    """What a job with this spec would do. Nothing was recorded."""

    object: Literal["validation"] = "validation"
    valid: Literal[True] = True
    train: DatasetPlan
    validation: DatasetPlan
    labels: tuple[str, ...] | None = Field(description="The model's label names; null when it has numbers only.")
    num_labels: int
    parameters: int = Field(description="Entries of one row's gradient.")
    blocks: tuple[BlockPlan, ...]
    gradient_bytes: int
    memory: MemoryPlan | None = Field(description="Null for the queue 'gpu', whose devices have a memory of their own.")
    disk_bytes: int = Field(description="Files that the job leaves in the cache: gradients, curvature and solution.")
    vectors: int = Field(description="Score vectors stored, each over all train rows.")
    cells: int = Field(description="Stored scores: vectors times train rows.")
    plan: SolvePlan
    workers: int = Field(description="Live workers of the job's queue.")
    warnings: tuple[str, ...]


JSON_EXAMPLE: dict[str, Any] = {
    "name": "topics-noise",
    "labels": {"team": "support"},
    "model": {
        "task": "sequence-classification",
        "base": "minilm",
        "adapter": "topics-lora",
        "dtype": "float32",
        "max_length": 128,
    },
    "train": {
        "source": {"kind": "file", "path": "topics/train.jsonl"},
        "columns": {"id": "id", "text": "text", "text_pair": None, "label": "label"},
        "limit": None,
    },
    "validation": {
        "source": {
            "kind": "inline",
            "rows": [{"id": "q1", "text": "how do I undo a commit", "label": "coding"}],
        }
    },
    "parameters": {"select": "adapter"},
    "curvature": {"kind": "gfim"},
    "damping": {"relative": 0.1},
    "solver": {"kind": "schulz", "tolerance": 1e-6},
    "output": {"per_validation_row": True, "self_influence": True},
    "seed": 0,
}
