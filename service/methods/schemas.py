"""What ``GET /v1/methods`` answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ascribe.spec import Damping


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class CurvatureMethod(View):
    kind: str
    summary: str
    when: str = Field(description="When to use it, in a sentence.")
    solvers: tuple[str, ...] = Field(description="Solvers it goes with.")
    options: dict[str, Any] = Field(description="JSON Schema of this variant of `curvature`.")


class SolverMethod(View):
    kind: str
    summary: str
    when: str
    curvatures: tuple[str, ...]
    exact: bool = Field(description="Whether it aims at the exact solution, or at an approximation by design.")
    options: dict[str, Any] = Field(description="JSON Schema of this variant of `solver`.")


class Pair(View):
    curvature: str
    solver: str
    note: str = Field(description="What the pair does, in a sentence.")
    default_damping: Damping | None = Field(description="Where the spec gives none; null: it takes none.")


class Methods(View):
    object: Literal["methods"] = "methods"
    sign: str = Field(description="What a positive and a negative score mean.")
    curvatures: tuple[CurvatureMethod, ...]
    solvers: tuple[SolverMethod, ...]
    pairs: tuple[Pair, ...]
    damping: dict[str, Any] = Field(description="JSON Schema of `damping`.")
