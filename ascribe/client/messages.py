"""What requests and answers are made of, whoever sends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from ascribe.client.errors import UnexpectedReply
from ascribe.result import Diagnostics, ScoredRow, Summary
from ascribe.spec import JobSpec

T = TypeVar("T")
U = TypeVar("U")
Document: TypeAlias = dict[str, Any]
Spec: TypeAlias = JobSpec | Mapping[str, Any]
ScoredRows: TypeAlias = list[ScoredRow]
Order = Literal["row", "proponents", "opponents", "absolute"]
Format = Literal["ndjson", "csv", "parquet", "arrow"]

MEDIA_TYPES: Mapping[Format, str] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """``parse`` makes the answer of a successful reply and raises UnexpectedReply."""

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    content: Callable[[], Iterator[bytes]] | None = None
    """A body in pieces; called again for every try."""
    patience_seconds: float = 0.0
    """How much longer than others this reply may take."""

    def parsed_by(self, parse: Callable[[httpx.Response], U]) -> Request[U]:
        """The same question with another reading of its reply."""
        return Request(
            self.method, self.path, parse, self.params, self.headers, self.json, self.content, self.patience_seconds
        )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list, and what to ask for the rest; None after the last part."""

    data: list[T]
    following: Request[Page[T]] | None


class Selection(TypedDict, total=False):
    """Which scores of a job, in which order. Left out: the mean over the validation rows, for every train row.

    ``vector``: ``mean``, ``self_influence``, ``train_loss``, ``plain_product``, ``top_removed``, or ``all``, every
    validation row, for batches, tables and downloads alone. ``validation_id``: the scores for that one validation row
    in place of the mean, and ``token``: for that one token of its completion. ``train_id``: the scores of that one
    train row for every validation row; with ``validation_id`` for every token of its completion. ``order``:
    ``proponents`` (highest first), ``opponents`` (lowest first), ``absolute`` (largest magnitude first) or ``row``.
    ``top_k``: only so many, from the start of the order. ``damping``: which value of a damping path; left out, its
    first. ``relative``: scores over the root of the row's self-influence.
    """

    vector: str
    validation_id: str | None
    token: int | None
    train_id: str | None
    damping: float | None
    relative: bool | None
    order: Order | None
    top_k: int | None


class SelectionOptions(TypedDict, total=False):
    """Which rows to select: ``fraction`` of the train rows or a ``count``, one of them.

    ``order``: ``proponents`` or ``opponents``. ``quota``: ``none``, ``proportional`` or ``balanced`` by label.
    ``duplicates``: ``drop`` or ``keep``. ``validation_id``, ``damping`` and ``relative`` as in :class:`Selection`.
    """

    fraction: float | None
    count: int | None
    order: Literal["proponents", "opponents"]
    quota: Literal["none", "proportional", "balanced"]
    duplicates: Literal["drop", "keep"]
    validation_id: str | None
    damping: float | None
    relative: bool | None


class LabelSelection(BaseModel):
    label: str
    rows: int
    selected: int


class SelectionSummary(BaseModel):
    """What ``GET /v1/jobs/{id}/selection`` answers beside the rows."""

    rows: int
    selected: int
    duplicates: int
    lowest_score: float
    highest_score: float
    labels: tuple[LabelSelection, ...]


class QueryOptions(TypedDict, total=False):
    """``output``: which scores to keep; left out, as the earlier job had it. The rest is as when a job is created."""

    name: str | None
    labels: Mapping[str, str] | None
    output: Mapping[str, Any] | None
    idempotency_key: str | None


class JobSummary(Summary):
    """What ``GET /v1/jobs/{id}/summary`` answers."""

    diagnostics: Diagnostics


class Dataset(BaseModel):
    """What ``POST /v1/datasets`` answers, as far as the client needs it."""

    id: str


def as_model(kind: type[T]) -> Callable[[httpx.Response], T]:
    """A parser of JSON bodies. A newer API may send fields this client does not know: they are ignored."""

    def parse(response: httpx.Response) -> T:
        try:
            return TypeAdapter(kind).validate_json(response.content, extra="ignore")
        except ValidationError as error:
            where = "/".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            raise UnexpectedReply(
                f"the reply to {response.request.method} {response.request.url.path} is not an Ascribe API's "
                f"(at /{where}): check the address, or upgrade the older side"
            ) from None

    return parse
