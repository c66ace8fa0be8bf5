"""What a request selects, as a table that is read slab by slab: rows, and one or more score columns beside them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from ascribe.job import Job
from ascribe.ledger.base import Ledger
from ascribe.result import Manifest, RowInfo
from ascribe.results.ranking import RankedOrder
from service.results.ranking import Rankings
from service.results.schemas import Order, Vector
from service.results.vectors import RowFile, Scores, iterate_rows, read_rows

SLAB_ROWS = 1 << 13
SLAB_CELLS = 1 << 22
"""What one slab may hold at most: 16 MiB of scores."""
FEW_ROWS = 10_000
"""Rows that are picked out of the list; more of them are put into a file first."""


class ByIndex(Protocol):
    """Scores to be had by the row's index."""

    def __getitem__(self, index: int, /) -> float: ...


@dataclass(frozen=True, slots=True)
class Slab:
    """Consecutive rows of a table: ``columns[c][i]`` is the score of ``rows[i]``, whose index is ``indices[i]``."""

    indices: Sequence[int]
    rows: Sequence[RowInfo]
    columns: Sequence[array[float]]


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of ``length`` rows, those listed under ``rows_name``.

    ``key`` tells them from the job's other scores. ``columns`` are the validation rows' ids of a matrix, None where
    there is one column. ``top``: scores by index from the start of the order, where they are at hand without the rest.
    """

    vector: Vector
    key: str
    rows_name: str
    length: int
    scores: Scores
    columns: Sequence[str] | None = None
    top: Mapping[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Scores in an order; ``total`` counts the rows that are asked for."""

    ledger: Ledger
    job: Job
    manifest: Manifest
    scored: Scored
    validation_id: str | None
    token: int | None
    train_id: str | None
    damping: float | None
    relative: bool
    order: Order
    sign: str
    total: int

    def part(self, start: int, stop: int, rankings: Rankings) -> Slab:
        """Rows ``start`` to ``stop`` of the order, of one column."""
        if self.order == "row":
            indices: Sequence[int] = range(start, stop)
            columns = self.scored.scores.part(start, stop - start) if start < stop else [array("f")]
        else:
            ranked, scores = self._ranked(self.order, stop, rankings)
            indices = ranked[start:stop]
            columns = [array("f", [scores[index] for index in indices])]
        rows = read_rows(self.ledger, self.job.id, self.scored.rows_name, set(indices))
        return Slab(indices, [rows[index] for index in indices], columns)

    def slabs(self, rankings: Rankings) -> Iterator[Slab]:
        """All rows that are asked for, in order."""
        return self._in_row_order() if self.order == "row" else self._in_ranked_order(self.order, rankings)

    def _in_row_order(self) -> Iterator[Slab]:
        rows = iterate_rows(self.ledger, self.job.id, self.scored.rows_name)
        width = len(self.scored.columns) if self.scored.columns else 1
        step = min(SLAB_ROWS, max(SLAB_CELLS // width, 1))
        for start in range(0, self.total, step):
            count = min(step, self.total - start)
            yield Slab(range(start, start + count), list(islice(rows, count)), self.scored.scores.part(start, count))

    def _in_ranked_order(self, order: RankedOrder, rankings: Rankings) -> Iterator[Slab]:
        ranked, scores = self._ranked(order, self.total, rankings)
        indices = ranked[: self.total]
        if len(indices) <= FEW_ROWS:
            yield from _ranked_slabs(
                indices, scores, read_rows(self.ledger, self.job.id, self.scored.rows_name, set(indices))
            )
        else:
            with RowFile(self.ledger, self.job.id, self.scored.rows_name) as rows:
                yield from _ranked_slabs(indices, scores, rows)

    def _ranked(self, order: RankedOrder, stop: int, rankings: Rankings) -> tuple[Sequence[int], ByIndex]:
        """At least the first ``stop`` indices of the order, and scores."""
        top = self.scored.top
        if top is not None and stop <= len(top):
            return list(top), top
        (scores,) = self.scored.scores.part(0, self.scored.length)
        return rankings.get((self.job.id, self.scored.key, order), scores, order), scores


def _ranked_slabs(indices: Sequence[int], scores: ByIndex, rows: Mapping[int, RowInfo] | RowFile) -> Iterator[Slab]:
    for start in range(0, len(indices), SLAB_ROWS):
        part = indices[start : start + SLAB_ROWS]
        yield Slab(part, [rows[index] for index in part], [array("f", [scores[index] for index in part])])
