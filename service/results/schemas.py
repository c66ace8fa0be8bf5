"""Queries and bodies of the result endpoints."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from pydantic_core import PydanticCustomError

from ascribe.result import Diagnostics, ScoredRow, Summary
from ascribe.results.ranking import RankedOrder
from ascribe.status import SolveStatus

Order = Literal["row", RankedOrder]
Stored = Literal["mean", "self_influence", "train_loss", "plain_product", "top_removed"]
Vector = Stored | Literal["validation_row", "validation_token", "train_row", "tokens", "all"]
FileFormat = Literal["ndjson", "csv", "parquet", "arrow"]
Format = Literal["json"] | FileFormat


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ScoresQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    vector: Stored | Literal["all"] = Field(
        default="mean",
        description="`mean`: over the validation rows. `self_influence`, `train_loss`: of the train row alone. "
        "`plain_product`, `top_removed`: means without an inverse, where `output.role_of_inverse` asked for them. "
        "`all`: every validation row's scores, a matrix, as a file.",
    )
    validation_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Scores for this one validation row, in place of the mean."
    )
    token: int | None = Field(
        default=None, ge=0, description="With validation_id, of a language model: scores for this token of it alone."
    )
    train_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Scores of this one train row, for every validation row: `data` are those rows. With "
        "validation_id, of a language model: for every token of its completion.",
    )
    damping: FiniteFloat | None = Field(
        default=None, description="Which value of the job's damping path; left out, its first."
    )
    relative: bool = Field(
        default=False,
        description="Each score over the root of the row's self-influence (RelatIF), which rows with large gradients "
        "no longer lead. For scores of train rows, of a job with `output.self_influence`.",
    )
    order: Order | None = Field(
        default=None,
        description="`proponents`: highest first; `opponents`: lowest first; `absolute`: largest magnitude first; "
        "`row`: as in the data set. "
        "Left out: `row`, or `proponents` where `top_k` is given.",
    )
    top_k: int | None = Field(default=None, ge=1, description="Only so many, from the start of the order.")
    limit: int = Field(default=100, ge=1, le=10_000, description="Rows of one page of JSON.")
    after: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="`next_after` of the page before, in JSON."
    )
    format: Format | None = Field(default=None, description="In place of an `Accept` header, for browsers.")

    @model_validator(mode="after")
    def _one_vector(self) -> Self:
        by_row = {"validation_id": self.validation_id is not None, "train_id": self.train_id is not None}
        if any(by_row.values()) and self.vector != "mean":
            pointer = next(f"/query/{name}" for name, given in by_row.items() if given)
            raise PydanticCustomError(
                "one_vector", "give validation_id and train_id, or another vector, not both", {"pointer": pointer}
            )
        if self.token is not None and (self.validation_id is None or self.train_id is not None):
            raise PydanticCustomError(
                "token_of_a_row", "a token goes with validation_id and nothing else", {"pointer": "/query/token"}
            )
        if self.relative and (self.train_id is not None or self.vector not in ("mean", "all")):
            raise PydanticCustomError(
                "relative_to_a_row",
                "relative goes with scores of train rows: the mean, those of a validation row or token, or all",
                {"pointer": "/query/relative"},
            )
        if self.vector == "all" and self.effective_order != "row":
            raise PydanticCustomError(
                "matrix_in_row_order", "a matrix has no ranking: ask for order=row", {"pointer": "/query/order"}
            )
        return self

    @property
    def effective_order(self) -> Order:
        return self.order or ("row" if self.top_k is None else "proponents")


class ScorePage(View):
    object: Literal["list"] = "list"
    job_id: str
    vector: Vector
    validation_id: str | None
    token: int | None = Field(description="Of the validation row's completion, where one was asked for.")
    train_id: str | None
    damping: float | None = Field(description="Of the damping path; null where there is none.")
    relative: bool = Field(description="Whether scores are over the root of the row's self-influence.")
    order: Order
    sign: str = Field(description="What a high and a low value mean.")
    data: tuple[ScoredRow, ...]
    has_more: bool
    next_after: str | None = Field(description="Cursor of the next page; null on the last.")


class Bin(View):
    lower: float
    upper: float
    count: int


class PhaseSeconds(View):
    phase: str
    seconds: float


class DatasetCache(View):
    dataset: str
    hit_rows: int
    rows: int


class JobSummary(Summary):
    """The summary of the mean score, the diagnostics, and both as flat arrays that a dashboard can plot."""

    object: Literal["summary"] = "summary"
    job_id: str
    sign: str
    train_rows: int
    validation_rows: int
    parameters: int
    status: SolveStatus = Field(description="Of the solve, the worst of the blocks.")
    diagnostics: Diagnostics
    bins: tuple[Bin, ...]
    phases: tuple[PhaseSeconds, ...]
    cache: tuple[DatasetCache, ...]
