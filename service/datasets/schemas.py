"""The dataset as the service shows it and keeps it beside its rows."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ascribe.sources.reading import Format
from ascribe.spec import DATASET_ID_PATTERN

MEDIA_TYPES: dict[str, Format] = {
    "application/x-ndjson": "jsonl",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/vnd.apache.parquet": "parquet",
}


class Dataset(BaseModel):
    model_config = ConfigDict(frozen=True)

    object: Literal["dataset"] = "dataset"
    id: str = Field(pattern=DATASET_ID_PATTERN, description="ds_ and the sha256 of the bytes that were sent.")
    format: Format
    bytes: int = Field(description="As sent.")
    rows: int
    columns: tuple[str, ...] = Field(description="In the order of the file.")
    created_at: datetime
