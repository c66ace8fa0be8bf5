"""What ``GET /v1/limits`` answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Limit(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str = Field(description="As errors name it.")
    value: int | float
    description: str
    setting: str | None = Field(description="The variable that changes it; null where it is part of the API.")


class Limits(BaseModel):
    model_config = ConfigDict(frozen=True)

    object: Literal["list"] = "list"
    data: tuple[Limit, ...]
