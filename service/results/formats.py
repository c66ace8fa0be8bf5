"""The forms in which scores are offered, and which one a request gets."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ascribe.errors import InvalidInput
from service.errors import NotAcceptable
from service.negotiation import preferred
from service.results import encoders
from service.results.ranking import Rankings
from service.results.schemas import FileFormat, Format, ScoresQuery
from service.results.table import Slab, Table

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
"""In the order of preference where the client has none."""

MAX_COLUMNS = 10_000
"""Of a Parquet or Arrow file: each column has a cost of its own in every record batch."""


def choose(query: ScoresQuery, accept: str | None) -> Format:
    """``format`` wins over Accept. Raises NotAcceptable."""
    if query.format is not None:
        return query.format
    media_type = preferred(accept, tuple(MEDIA_TYPES.values()))
    if media_type is None:
        raise NotAcceptable(f"Scores are offered as {', '.join(MEDIA_TYPES.values())}: name one in Accept.")
    return next(name for name, offered in MEDIA_TYPES.items() if offered == media_type)


def check_file(query: ScoresQuery, form: FileFormat, table: Table) -> None:
    """Raises InvalidInput: what only pages have, or a matrix that is too wide for columns."""
    for name in ("limit", "after"):
        if name in query.model_fields_set:
            raise InvalidInput.at(f"/query/{name}", "json_only", "is for pages of JSON: a file has every row, or top_k")
    if form in ("parquet", "arrow") and len(table.scored.columns or ()) > MAX_COLUMNS:
        raise InvalidInput.at(
            "/query/format",
            "too_many_columns",
            f"a matrix of more than {MAX_COLUMNS} validation rows comes as NDJSON or CSV, one line a pair",
        )


def file_name(form: FileFormat, table: Table) -> str:
    """From the id and the kind of scores alone: row ids are the caller's own."""
    return f"{table.job.id}-{table.scored.vector}.{form}"


def encode(form: FileFormat, table: Table, rankings: Rankings) -> Generator[bytes]:
    """The file in chunks. The first one is made here: what is wrong shows before the answer has begun."""
    chunks = _encoder(form, table, table.slabs(rankings))
    first = next(chunks)

    def all_chunks() -> Generator[bytes]:
        yield first
        yield from chunks

    return all_chunks()


def _encoder(form: FileFormat, table: Table, slabs: Iterator[Slab]) -> Iterator[bytes]:
    match form:
        case "ndjson":
            return encoders.ndjson(table, slabs)
        case "csv":
            return encoders.comma_separated(table, slabs)
        case "parquet":
            from service.results import columnar

            return columnar.parquet(table, slabs)
        case "arrow":
            from service.results import columnar

            return columnar.arrow_stream(table, slabs)
