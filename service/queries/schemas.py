"""The body of a query. What it makes is a job: :class:`ascribe.job.Job`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ascribe.spec import DatasetSpec, LabelKey, LabelValue, OutputSpec, Part, ShortText


class Query(Part):
    """New validation rows for the train rows, the model and the method of an earlier job."""

    validation: DatasetSpec
    name: ShortText | None = None
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=32)
    output: OutputSpec | None = Field(default=None, description="Left out: as the earlier job had it.")


JSON_EXAMPLE: dict[str, Any] = {
    "name": "one more question",
    "validation": {
        "source": {
            "kind": "inline",
            "rows": [{"id": "q2", "text": "how do I squash commits", "label": "coding"}],
        }
    },
}
