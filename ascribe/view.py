"""A spec as answers show it: inline rows counted, and carried only where the caller asks for them.

A job may carry 10 000 rows, and whoever polls it or lists jobs has no use for them.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from ascribe.spec import AnyInlineRow, DatasetSource, DatasetSpec, FileSource, InlineSource, JobSpec


class InlineView(InlineSource):
    """Rows that were carried in the request."""

    rows: tuple[AnyInlineRow, ...] = Field(default=(), max_length=10_000, description="Empty unless asked for.")
    row_count: int = Field(ge=1, description="How many rows the request carried.")


class DatasetView(DatasetSpec):
    source: Annotated[FileSource | DatasetSource | InlineView, Field(discriminator="kind")]

    @classmethod
    def of(cls, dataset: DatasetSpec, *, rows: bool) -> Self:
        source = dataset.source
        if isinstance(source, InlineSource):
            source = InlineView.model_construct(
                kind="inline", rows=source.rows if rows else (), row_count=len(source.rows)
            )
        return cls.model_construct(**{**dict(dataset), "source": source})


class SpecView(JobSpec):
    """The spec of a job, defaults filled in."""

    train: DatasetView
    validation: DatasetView

    @classmethod
    def of(cls, spec: JobSpec, *, rows: bool = False) -> Self:
        """``spec`` was checked when it was made: nothing is checked again. ``rows``: carry inline rows too."""
        train, validation = (DatasetView.of(dataset, rows=rows) for dataset in (spec.train, spec.validation))
        return cls.model_construct(**{**dict(spec), "train": train, "validation": validation})
