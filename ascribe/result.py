"""What a finished job says about its scores: shapes, sign, accuracy of the solve, and where everything came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

from ascribe.spec import OutputSpec
from ascribe.status import SolveStatus

SIGN = "positive: up-weighting this training row lowers the validation loss (proponent); negative: raises it (opponent)"

MEAN = "mean"
SELF_INFLUENCE = "self_influence"
TRAIN_LOSS = "train_loss"
PLAIN_PRODUCT = "plain_product"
TOP_REMOVED = "top_removed"
TRAIN_ROWS = "train_rows"
VALIDATION_ROWS = "validation_rows"
TOP = "top"


def validation_vector(index: int) -> str:
    """Name of the stored score vector of validation row ``index``."""
    return f"validation:{index}"


def token_vector(index: int, token: int) -> str:
    """Name of the vector of one token of the completion of validation row ``index``."""
    return f"{validation_vector(index)}:token:{token}"


def token_rows(index: int) -> str:
    """Name of the list of tokens of the completion of validation row ``index``."""
    return f"{VALIDATION_ROWS}:{index}:tokens"


def at_damping(name: str, index: int) -> str:
    """Name of the same vector at value ``index`` of a damping path; the first value's is the plain name."""
    return f"{name}@{index}" if index else name


def vector_names(
    output: OutputSpec, validation_rows: int, dampings: int = 1, tokens: Sequence[int] = ()
) -> tuple[str, ...]:
    """Every vector that a job with this output stores: what the limit on cells counts.

    ``tokens``: of each validation row, where they are scored one by one.
    """
    rows = tuple(map(validation_vector, range(validation_rows))) if output.per_validation_row else ()
    parts = tuple(token_vector(row, token) for row, count in enumerate(tokens) for token in range(count))
    solved = (MEAN, *rows, *parts, *((SELF_INFLUENCE,) if output.self_influence else ()))
    beside = (PLAIN_PRODUCT, TOP_REMOVED) if output.role_of_inverse else ()
    return (*(at_damping(name, index) for index in range(dampings) for name in solved), *beside, TRAIN_LOSS)


def _null_unless_finite(value: object) -> object:
    # JSON has no NaN or Infinity, and a bound that is infinite is none.
    return None if isinstance(value, float) and not math.isfinite(value) else value


Bound = Annotated[float | None, BeforeValidator(_null_unless_finite)]
"""An upper bound; null where there is none."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RowInfo(Record):
    """A row beside its scores. ``text`` is a preview, cut to the server's preview length.

    A language model's row has no label, and its text is prompt and completion.
    """

    id: str
    label: str | None
    text: str


class Spectrum(Record):
    """What was measured of one block's curvature, before damping."""

    trace: float = Field(description="Sum of the eigenvalues.")
    trace_standard_error: float = Field(description="Of Hutchinson's estimate; 0 where the trace is exact.")
    largest: float = Field(description="Largest eigenvalue, by Lanczos: never above the true one.")
    largest_residual: float = Field(description="An eigenvalue lies within this of `largest`.")
    top: tuple[float, ...] = Field(description="The largest eigenvalues, by a Gaussian sketch, in falling order.")
    top_error: float = Field(description="Bound on the error of each of `top`, with high probability.")
    batch_variance: float | None = Field(
        description="tr(E C_B^2 - C^2) over batches of `batch_size`, from independent batches; null where not sampled."
    )
    batch_size: int | None
    products: float = Field(description="Products with the whole matrix that measuring took.")


class BlockDiagnostics(Record):
    """One block's solve. The residual is measured after the solve, in float64, never taken from the solver."""

    name: str
    rank: int = Field(description="R, the short side of the matrix.")
    long_side: int = Field(description="D, the long side.")
    status: SolveStatus
    damping: float | None = Field(description="The lambda that was added; null without curvature.")
    condition_bound: Bound
    relative_residual: FiniteFloat = Field(description="Largest ||A x - v|| / ||v|| over the right-hand sides.")
    iterations: int
    products: float = Field(description="Products of the block's size the solve used.")
    precision: str
    plan: dict[str, float] | None = Field(
        default=None,
        description="What the solver chose and predicted; of the published Schulz start, its hidden damping.",
    )
    spectrum: Spectrum | None = Field(default=None, description="With `output.spectrum`.")
    notes: tuple[str, ...] = ()


class CacheUse(Record):
    """Rows whose gradients were found in the cache, of all rows."""

    hit_rows: int
    rows: int


class Reuse(Record):
    """What of earlier jobs' work this one started from; the rest it computed."""

    reused: int
    of: int
    keeps: str = Field(description="What is kept for later jobs, or that nothing is.")


class PathPoint(Record):
    """One value of a damping path: how its solve went, and how far its ranking agrees with the others'."""

    factor: float = Field(description="As the spec has it.")
    status: SolveStatus
    worst_relative_residual: FiniteFloat
    largest_condition_bound: Bound
    iterations: int
    products: float
    spearman: tuple[float | None, ...] = Field(
        description="Of the mean scores with those of every value of the path, in the path's order; null: constant."
    )


class InverseRole(Record):
    """Rank agreement (Spearman) of the scores with two rankings that need no inverse.

    Near 1 the inverse changes little, or no more than taking out the curvature's top directions would.
    """

    top_directions: int
    with_plain_product: float | None = Field(description="Mean scores beside plain gradient products.")
    with_top_removed: float | None = Field(description="Mean scores beside products without the top directions.")
    plain_with_top_removed: float | None
    rows_with_plain_product: float | None = Field(description="Median over the validation rows' own scores.")
    rows_with_top_removed: float | None = Field(description="Median over the validation rows' own scores.")


class Candidate(Record):
    """A solver that `auto` weighed. Seconds and bytes are predictions."""

    solver: str
    seconds: float | None
    bytes: int | None
    feasible: bool
    reason: str | None = Field(description="Why it is out of the question; null where it is not.")


class Choice(Record):
    """What `solver: auto` took, and why."""

    pick: str
    why: str
    seconds: float = Field(description="Predicted, for the solve alone.")
    bytes: int = Field(description="Predicted peak of the solve.")
    candidates: tuple[Candidate, ...]


class ProjectionUse(Record):
    """What a projection took away, and what that does to rankings: measured on a sample of the job's rows."""

    parameters: int = Field(description="Entries of a projected gradient.")
    of_parameters: int = Field(description="Entries of a whole one.")
    train_rows: int = Field(description="Rows of the sample.")
    validation_rows: int
    rank_agreement: float | None = Field(
        description="Spearman correlation of the train rows' plain gradient products with and without the projection, "
        "the median over the validation rows. Scores with a curvature agree less. Null where the sample is too small "
        "to rank, or whole gradients of it do not fit."
    )


class Diagnostics(Record):
    status: SolveStatus = Field(description="The worst of the blocks.")
    advice: str
    worst_relative_residual: FiniteFloat
    largest_condition_bound: Bound
    iterations: int = Field(description="The most any block took.")
    products: float = Field(description="Sum over the blocks.")
    blocks: tuple[BlockDiagnostics, ...]
    seconds: dict[str, float] = Field(description="By phase, and 'total'.")
    peak_memory_bytes: int = Field(
        description="Largest resident size of the worker's process, gradient files that it had mapped among it."
    )
    estimated_memory_bytes: int | None = Field(
        default=None,
        description="What was expected of it before anything was loaded, had the job found nothing of earlier ones; "
        "null for a worker on another device than a CPU.",
    )
    disk_bytes: int | None = Field(default=None, description="Files in the cache that the job found or left.")
    estimated_disk_bytes: int | None = Field(default=None, description="What was expected of them.")
    cache: dict[str, CacheUse] = Field(description="By dataset: train, validation.")
    reused: dict[str, Reuse] = Field(
        default_factory=dict,
        description="By what is kept: gradients (rows), curvature (blocks) and solution (blocks). The scores are the "
        "same to the bit whatever was reused.",
    )
    workers: dict[str, int] = Field(
        default_factory=dict,
        description="By worker: rows whose gradients it computed in the attempt that succeeded.",
    )
    choice: Choice | None = Field(default=None, description="With solver `auto`: what it took, and why.")
    damping_path: tuple[PathPoint, ...] = Field(
        default=(), description="With more than one damping: each value's solve. All else here is of the first value."
    )
    role_of_inverse: InverseRole | None = None
    projection: ProjectionUse | None = None
    warnings: tuple[str, ...] = ()


class Provenance(Record):
    """Enough to run the job again and to know whether it would be the same job."""

    base_sha256: str
    adapter_sha256: str | None = Field(description="Null for a base alone.")
    train_sha256: str
    validation_sha256: str
    gradient_fingerprint: str
    solution_fingerprint: str | None = Field(
        default=None, description="What `solver.warm_start` of a later job takes; null where nothing is kept."
    )
    versions: dict[str, str]
    attention: str
    token_budget: int
    device: str
    seed: int


class ScoredRow(Record):
    index: int
    id: str
    label: str | None
    text: str
    score: float


class TokenScores(Record):
    """How much one train row has to do with each token of a validation row's completion."""

    validation_id: str
    row: ScoredRow
    tokens: tuple[str, ...]
    scores: tuple[float, ...]


class Histogram(Record):
    edges: tuple[float, ...]
    counts: tuple[int, ...]


class LabelSummary(Record):
    label: str
    rows: int
    mean_score: float
    share_negative: float


class Summary(Record):
    """Of the mean score over the validation rows: small enough for a dashboard."""

    rows: int
    minimum: float
    median: float
    maximum: float
    share_negative: float
    histogram: Histogram
    by_label: tuple[LabelSummary, ...]
    proponents: tuple[ScoredRow, ...]
    opponents: tuple[ScoredRow, ...]


class StoredVectors(Record):
    """Score vectors too large for the ledger: a Parquet file on the store, a column a vector."""

    name: str = Field(description="Below the results of the tenant.")
    bytes: int
    footer_sha256: str = Field(description="Of the file's end, which says where everything is; pages have checksums.")
    group_rows: int = Field(description="Rows of a row group, the last one's aside: what is read at once.")


class Manifest(Record):
    """The committed result: present only when everything it names can be read."""

    sign: str = SIGN
    train_rows: int
    validation_rows: int
    tokens: tuple[int, ...] = Field(
        default=(),
        description="Scored tokens of each validation row's completion; empty where none were asked for.",
    )
    parameters: int
    vectors: tuple[str, ...] = Field(description="Names of the stored float32 score vectors, each over all train rows.")
    stored: StoredVectors | None = Field(
        default=None, description="Where the vectors are; null: in the ledger, as small ones are."
    )
    diagnostics: Diagnostics
    provenance: Provenance
    summary: Summary
    token_examples: tuple[TokenScores, ...] = Field(
        default=(), description="Of the first validation rows the strongest proponents, token by token."
    )

    @property
    def staged(self) -> tuple[str, ...]:
        """What must be in the ledger when this is committed."""
        return self.vectors if self.stored is None else (TOP,)
