"""Rows of a file of JSON lines. Blank lines are passed over; an error's row number counts rows, not lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ascribe.sources.text_file import TextFile


def json_lines(file: TextFile) -> Iterator[Any]:
    """One value a line, whatever it is. Raises InvalidInput for a line that is not JSON."""
    for line in file.lines():
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise file.problem("malformed_json", "the line is not JSON") from error
        yield value
        file.row += 1
