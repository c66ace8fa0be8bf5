"""From a file to checked rows, whatever its format: what the reader's child does, as plain functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.sources.delimited import delimited_rows
from ascribe.sources.json_lines import json_lines
from ascribe.sources.limits import ReadLimits
from ascribe.sources.parquet import ParquetRows
from ascribe.sources.row_checks import CheckedRow, ColumnNames, Labels, RowChecker
from ascribe.sources.text_file import TextFile

Format = Literal["jsonl", "csv", "tsv", "parquet"]
MAX_COLUMNS = 1000


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of rows, found and named by whoever may say where it is."""

    path: Path
    format: Format


@dataclass(frozen=True, slots=True)
class Roles:
    """What the rows are read for; ``pointer`` is the dataset's place in the spec (``/train``).

    A language model's rows have no labels.
    """

    columns: ColumnNames
    labels: Labels | None
    limit: int | None
    pointer: str


@dataclass(frozen=True, slots=True)
class Description:
    """``columns`` in the order of the file: of the header, the schema, or as they first occur in JSON."""

    rows: int
    columns: tuple[str, ...]


def checked_rows(file: DataFile, roles: Roles, limits: ReadLimits) -> Iterator[CheckedRow]:
    """The rows of ``file`` one by one until the first that is wrong, then the rest of the problems.

    Raises:
        InvalidInput: up to 20 problems, pointers such as ``/train/source/rows/123/label``.
        LimitExceeded: what is over a limit, by the limit's name.
    """
    checker = RowChecker(roles.columns, roles.labels, roles.pointer, pair_required=True)
    for index, raw in enumerate(islice(_raw_rows(file, limits, f"{roles.pointer}/source", roles), roles.limit)):
        check_count(index, limits, f"{roles.pointer}/limit")
        row = checker.check(raw)
        if row is not None:
            yield row
    checker.finish()


def describe(file: DataFile, limits: ReadLimits) -> Description:
    """Read the whole of ``file``, for no role: is it what it says, and what is in it?

    Raises InvalidInput and LimitExceeded, with pointers such as ``/rows/123``.
    """
    columns: dict[str, None] = {}
    count = 0
    if file.format == "parquet":
        columns = dict.fromkeys(ParquetRows(file.path, limits, "").columns)
    for index, raw in enumerate(_raw_rows(file, limits, "", None)):
        check_count(index, limits, "")
        if not isinstance(raw, dict):
            raise InvalidInput.at(f"/rows/{index}", "not_an_object", "must be a JSON object")
        columns |= dict.fromkeys(raw)
        if len(columns) > MAX_COLUMNS:
            raise LimitExceeded.at("", "limit_exceeded", f"the file has over {MAX_COLUMNS} columns")
        count = index + 1
    if count == 0:
        raise InvalidInput.at("", "empty_dataset", "the dataset has no rows")
    return Description(count, tuple(columns))


def _raw_rows(file: DataFile, limits: ReadLimits, pointer: str, roles: Roles | None) -> Iterator[Any]:
    limits.check_file_bytes(file.path.stat().st_size, pointer)
    match file.format:
        case "jsonl":
            return json_lines(TextFile(file.path, limits, pointer))
        case "csv":
            return delimited_rows(TextFile(file.path, limits, pointer), limits, pointer, delimiter=",")
        case "tsv":
            return delimited_rows(TextFile(file.path, limits, pointer), limits, pointer, delimiter="\t")
        case "parquet":
            table = ParquetRows(file.path, limits, pointer)
            return table.rows(table.columns_of(roles.columns, roles.pointer) if roles else table.readable_columns())


def check_count(index: int, limits: ReadLimits, pointer: str) -> None:
    """Raises LimitExceeded where row ``index`` is one too many."""
    if index >= limits.max_rows:
        message = f"the dataset has over {limits.max_rows} rows, the limit max_rows"
        raise LimitExceeded.at(pointer, "limit_exceeded", message)
