"""Reads a file that may be hostile, in a process of its own: ``python -m ascribe.sources.reader``.

One request as JSON comes in on stdin; a line each goes out: ``["rows", [...]]`` as often as needed and then
``["end"]``, or ``["described", rows, columns]``, or ``["problem", ...]``. Before it opens the file the process gives
up its right to more memory and time than the limits say, and to writing files of any size.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.sources.limits import ReadLimits
from ascribe.sources.reading import DataFile, Roles, checked_rows, describe
from ascribe.sources.row_checks import CheckedRow, ColumnNames, Labels

SENT_ROWS = 256
MOST_WRITTEN_BYTES = 1 << 16
"""Into any one file: enough for its last words."""


def main() -> None:
    """Answer the one request on stdin."""
    request: dict[str, Any] = json.load(sys.stdin)
    limits = ReadLimits(**request["limits"])
    file = DataFile(Path(request["path"]), request["format"])
    roles = None if request["roles"] is None else parse_roles(request["roles"])
    pointer = f"{roles.pointer}/source" if roles else ""
    confine(limits)
    try:
        if roles is None:
            description = describe(file, limits)
            send("described", description.rows, description.columns)
        else:
            _send_rows(file, roles, limits)
    except InvalidInput as error:
        kind = "limit" if isinstance(error, LimitExceeded) else "input"
        send("problem", kind, error.detail, [asdict(problem) for problem in error.errors])
    except MemoryError:
        message = (
            f"reading the file takes over {limits.reader_memory_bytes} bytes of memory, the limit reader_memory_bytes"
        )
        send("problem", "limit", message, [{"pointer": pointer, "code": "limit_exceeded", "message": message}])
    except OSError:
        message = "the file cannot be read: it is gone, or the disk or its rights refuse it"
        send("problem", "input", message, [{"pointer": pointer, "code": "unreadable_file", "message": message}])


def parse_roles(stated: dict[str, Any]) -> Roles:
    labels = stated["labels"]
    if labels is not None:
        labels = Labels(labels["count"], None if labels["names"] is None else tuple(labels["names"]))
    return Roles(
        ColumnNames(**stated["columns"]),
        labels,
        stated["limit"],
        stated["pointer"],
    )


def confine(limits: ReadLimits) -> None:
    """Lower this process's own limits, for good."""
    seconds = math.ceil(limits.reader_seconds)
    wanted = {
        resource.RLIMIT_AS: limits.reader_memory_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: MOST_WRITTEN_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def send(*message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")


def _send_rows(file: DataFile, roles: Roles, limits: ReadLimits) -> None:
    held: list[CheckedRow] = []
    held_characters = 0
    for row in checked_rows(file, roles, limits):
        held.append(row)
        held_characters += len(row.text) + len(row.text_pair or "")
        if len(held) == SENT_ROWS or held_characters > limits.max_line_bytes:
            send("rows", held)
            held, held_characters = [], 0
    if held:
        send("rows", held)
    send("end")


if __name__ == "__main__":
    main()
