"""What probes read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready"] = "ready"
    workers: int = Field(description="Live workers. Without any, jobs are taken and wait.")


class Version(BaseModel):
    name: Literal["ascribe"] = "ascribe"
    version: str
    api: Literal["v1"] = "v1"
