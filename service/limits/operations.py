"""Every limit there is: read from the settings and the schemas that enforce them, never written down twice."""

from __future__ import annotations

from annotated_types import Le, MaxLen
from pydantic import BaseModel

from ascribe.settings import ServiceSettings
from ascribe.spec import InlineSource, JobSpec, LissaSolver, ParametersSpec
from service.jobs.schemas import JobsQuery
from service.limits.schemas import Limit, Limits
from service.results.formats import MAX_COLUMNS
from service.results.schemas import ScoresQuery

PREFIXES = ("max_", "reader_")
"""Begin the name of every setting that is a limit."""

_FIXED: tuple[tuple[str, type[BaseModel], str, str], ...] = (
    ("inline_rows", InlineSource, "rows", "Rows carried in the request itself, in one dataset."),
    ("labels", JobSpec, "labels", "Labels of one job."),
    ("modules", ParametersSpec, "modules", "Names in parameters.modules."),
    ("lissa_steps", LissaSolver, "max_steps", "Steps of one LiSSA solve."),
    ("jobs_page", JobsQuery, "limit", "Jobs of one page."),
    ("scores_page", ScoresQuery, "limit", "Rows of one page of scores; files have all rows."),
)


def list_limits(settings: ServiceSettings) -> Limits:
    set_here = [
        Limit(
            name=name,
            value=getattr(settings, name),
            description=field.description or "",
            setting=f"ASCRIBE_{name.upper()}",
        )
        for name, field in ServiceSettings.model_fields.items()
        if name.startswith(PREFIXES) and getattr(settings, name) is not None  # one that is not set bounds nothing
    ]
    fixed = [
        Limit(name=name, value=_bound(model, field), description=description, setting=None)
        for name, model, field, description in _FIXED
    ]
    columns = Limit(
        name="matrix_columns",
        value=MAX_COLUMNS,
        description="Validation rows of a matrix in Parquet or Arrow; NDJSON and CSV have one line a pair.",
        setting=None,
    )
    return Limits(data=(*set_here, *fixed, columns))


def _bound(model: type[BaseModel], field: str) -> int:
    """The upper bound that pydantic checks."""
    for rule in model.model_fields[field].metadata:
        if isinstance(rule, MaxLen):
            return rule.max_length
        if isinstance(rule, Le):
            assert isinstance(rule.le, int)
            return rule.le
    raise AssertionError(f"{model.__name__}.{field} has no upper bound")
