"""Query and answer of a selection of train rows."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from pydantic_core import PydanticCustomError

from ascribe.choosing import Direction, Quota


class SelectionQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    fraction: float | None = Field(default=None, gt=0, le=1, description="Of the train rows; this or `count`.")
    count: int | None = Field(default=None, ge=1, description="So many rows; this or `fraction`.")
    order: Direction = Field(
        default="proponents",
        description="`proponents`: the rows that lower the validation loss most. `opponents`: those that raise it.",
    )
    quota: Quota = Field(
        default="none",
        description="Of each label its own best rows: as many as its share of all rows (`proportional`), or the same "
        "number of each (`balanced`). What a label is too small for goes to the best of the others.",
    )
    duplicates: Literal["drop", "keep"] = Field(
        default="drop", description="Rows with the same texts and label: the best alone, or all."
    )
    validation_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="By the scores for this one validation row, in place of the mean."
    )
    damping: FiniteFloat | None = Field(
        default=None, description="Which value of the job's damping path; left out, its first."
    )
    relative: bool = Field(
        default=False, description="By scores over the root of the row's self-influence, see `GET /scores`."
    )
    format: Literal["json", "ndjson"] | None = Field(default=None, description="In place of an `Accept` header.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.fraction is None) == (self.count is None):
            raise PydanticCustomError("one_size", "give fraction or count, one of them", {"pointer": "/query/fraction"})
        return self


class LabelSelection(BaseModel):
    model_config = ConfigDict(frozen=True)

    label: str
    rows: int
    selected: int


class SelectionSummary(BaseModel):
    """What a selection holds; the rows themselves come as NDJSON."""

    model_config = ConfigDict(frozen=True)

    object: Literal["selection"] = "selection"
    job_id: str
    rows: int = Field(description="Train rows that were scored.")
    selected: int
    duplicates: int = Field(description="Rows passed over because a better one says the same.")
    lowest_score: float
    highest_score: float
    labels: tuple[LabelSelection, ...] = Field(description="Empty for a language model.")
