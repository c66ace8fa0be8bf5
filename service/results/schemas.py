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
Vector = Stored | Literal["validation_row", "train_row", "all"]
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
    train_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Scores of this one train row, for every validation row: `data` are those rows."
    )
    damping: FiniteFloat | None = Field(
        default=None, description="Which value of the job's damping path; left out, its first."
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
        chosen = {"validation_id": self.validation_id is not None, "train_id": self.train_id is not None}
        if sum([*chosen.values(), self.vector != "mean"]) > 1:
            pointer = next(f"/query/{name}" for name, given in chosen.items() if given)
            raise PydanticCustomError(
                "one_vector", "give validation_id, train_id or another vector, only one of them", {"pointer": pointer}
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
    train_id: str | None
    damping: float | None = Field(description="Of the damping path; null where there is none.")
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
