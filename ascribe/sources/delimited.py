"""Rows of a CSV or TSV file: RFC 4180 quoting, a header line, every cell a text.

The standard library's parser rather than pyarrow's: it reads row by row in little memory and knows where it is, so
that an error names the row, and it guesses no types (an id ``007`` stays one).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from ascribe.errors import InvalidInput
from ascribe.sources.limits import ReadLimits
from ascribe.sources.text_file import TextFile


def delimited_rows(file: TextFile, limits: ReadLimits, pointer: str, *, delimiter: str) -> Iterator[dict[str, str]]:
    """Cells by column. Raises InvalidInput for a broken header, a row of another width, a quote that does not end."""
    csv.field_size_limit(limits.max_line_bytes)
    reader = csv.reader(_decoded(file), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = cells
                _check_header(header, pointer)
                continue
            if len(cells) != len(header):
                raise file.problem("malformed_row", f"has {len(cells)} cells, the header has {len(header)}")
            yield dict(zip(header, cells, strict=True))
            file.row += 1
    except csv.Error as error:
        message = "a quoted cell does not end, a quote stands where none may, or a cell is over max_line_bytes"
        raise file.problem("malformed_row", message) from error


def _check_header(header: list[str], pointer: str) -> None:
    if len(set(header)) != len(header):
        raise InvalidInput.at(pointer, "duplicate_column", "the header names a column twice")


def _decoded(file: TextFile) -> Iterator[str]:
    encoding = "utf-8-sig"  # spreadsheets write a byte order mark
    for line in file.lines():
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError as error:
            raise file.problem("bad_encoding", "the row is not UTF-8") from error
        encoding = "utf-8"
