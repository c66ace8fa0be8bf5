"""Queries and bodies of the result endpoints."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ascribe.result import Diagnostics, ScoredRow, Summary
from ascribe.status import SolveStatus

Order = Literal["row", "proponents", "opponents"]


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ScoresQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    vector: Literal["mean", "self_influence", "train_loss"] = Field(
        default="mean", description="`mean`: over the validation rows. The other two are of the train row alone."
    )
    validation_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Scores for this one validation row, in place of the mean."
    )
    order: Order | None = Field(
        default=None,
        description="`proponents`: highest first; `opponents`: lowest first; `row`: as in the train set. "
        "Left out: `row`, or `proponents` where `top_k` is given.",
    )
    top_k: int | None = Field(default=None, ge=1, description="Only so many, from the start of the order.")
    limit: int = Field(default=100, ge=1, le=10_000, description="Rows of one page.")
    after: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="`next_after` of the page before."
    )

    @model_validator(mode="after")
    def _one_vector(self) -> Self:
        if self.validation_id is not None and self.vector != "mean":
            raise PydanticCustomError(
                "one_vector", "give validation_id or another vector, not both", {"pointer": "/query/validation_id"}
            )
        return self

    @property
    def effective_order(self) -> Order:
        return self.order or ("row" if self.top_k is None else "proponents")


class ScorePage(View):
    object: Literal["list"] = "list"
    job_id: str
    vector: Literal["mean", "self_influence", "train_loss", "validation_row"]
    validation_id: str | None
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
