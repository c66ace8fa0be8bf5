"""Scores as files: one generator of bytes a format, from the slabs of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from service.results.table import Slab, Table

CHUNK_BYTES = 1 << 18

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PLAIN = ("index", "id", "label", "text", "score")
_LONG = ("index", "id", "label", "validation_id", "score")
"""Columns of a matrix: one record a pair of rows. The text would be repeated in each."""


def ndjson(table: Table, slabs: Iterator[Slab]) -> Iterator[bytes]:
    """One JSON object a line."""
    names = _names(table)
    buffer = io.StringIO()
    for record in _records(table, slabs):
        buffer.write(json.dumps(dict(zip(names, record, strict=True)), ensure_ascii=False, allow_nan=False))
        buffer.write("\n")
        if buffer.tell() >= CHUNK_BYTES:
            yield _take(buffer)
    yield _take(buffer)


def comma_separated(table: Table, slabs: Iterator[Slab]) -> Iterator[bytes]:
    """RFC 4180 with a header line, in UTF-8.

    A text that a spreadsheet would run as a formula gets an apostrophe in front: rows are written by others.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_names(table))
    for record in _records(table, slabs):
        writer.writerow([_defused(cell) for cell in record])
        if buffer.tell() >= CHUNK_BYTES:
            yield _take(buffer)
    yield _take(buffer)


def _names(table: Table) -> tuple[str, ...]:
    return _PLAIN if table.scored.columns is None else _LONG


def _records(table: Table, slabs: Iterator[Slab]) -> Iterator[tuple[Any, ...]]:
    for slab in slabs:
        for position, (index, row) in enumerate(zip(slab.indices, slab.rows, strict=True)):
            if table.scored.columns is None:
                yield index, row.id, row.label, row.text, slab.columns[0][position]
            else:
                for validation_id, column in zip(table.scored.columns, slab.columns, strict=True):
                    yield index, row.id, row.label, validation_id, column[position]


def _defused(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _take(buffer: io.StringIO) -> bytes:
    data = buffer.getvalue().encode()
    buffer.seek(0)
    buffer.truncate()
    return data
