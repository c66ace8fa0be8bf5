"""Scores page by page, as JSON."""

from __future__ import annotations

import base64
import binascii
import zlib

from ascribe.errors import InvalidInput
from ascribe.result import ScoredRow
from service.errors import BadCursor
from service.results.ranking import Rankings
from service.results.schemas import ScorePage, ScoresQuery
from service.results.table import Table


def score_page(table: Table, query: ScoresQuery, rankings: Rankings) -> ScorePage:
    """Raises NotFound, Expired, BadCursor, InvalidInput for a matrix."""
    if table.scored.columns is not None:
        raise InvalidInput.at(
            "/query/vector", "not_in_pages", "a matrix comes as a file: ask for NDJSON, CSV, Parquet or Arrow"
        )
    cursor = _Cursor(table.scored.key, table.order)
    start = cursor.decode(query.after) if query.after is not None else 0
    stop = min(start + query.limit, table.total)
    slab = table.part(min(start, stop), stop, rankings)
    return ScorePage(
        job_id=table.job.id,
        vector=table.scored.vector,
        validation_id=table.validation_id,
        token=table.token,
        train_id=table.train_id,
        damping=table.damping,
        relative=table.relative,
        order=table.order,
        sign=table.sign,
        data=tuple(
            ScoredRow(index=index, score=score, **row.model_dump())
            for index, row, score in zip(slab.indices, slab.rows, slab.columns[0], strict=True)
        ),
        has_more=stop < table.total,
        next_after=cursor.encode(stop) if stop < table.total else None,
    )


class _Cursor:
    """A position in one vector in one order, sealed so that it is refused in another."""

    def __init__(self, vector: str, order: str) -> None:
        self._seal = zlib.crc32(f"{vector}\n{order}".encode())

    def encode(self, position: int) -> str:
        return base64.urlsafe_b64encode(f"{position}.{self._seal}".encode()).decode().rstrip("=")

    def decode(self, text: str) -> int:
        """Raises BadCursor."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
            position, seal = map(int, raw.split("."))
        except (ValueError, binascii.Error):
            position, seal = -1, -1
        if position < 0 or seal != self._seal:
            raise BadCursor("'after' must be the next_after of a page of the same scores in the same order.")
        return position
