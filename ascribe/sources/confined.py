"""Starts the reader's child for a file, and makes its answer, its silence or its death an answer of ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ascribe
from ascribe.errors import InternalError, InvalidInput, LimitExceeded, Problem
from ascribe.sources.limits import ReadLimits
from ascribe.sources.reading import DataFile, Description, Roles
from ascribe.sources.row_checks import CheckedRow

_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""No more of ours goes to a process that may be taken over: the environment holds keys."""


def read_confined(file: DataFile, roles: Roles, limits: ReadLimits) -> Iterator[CheckedRow]:
    """The rows of ``file``, checked in the child.

    Raises:
        InvalidInput: problems of the rows or the file; also a file that its reader did not survive.
        LimitExceeded: what is over a limit, the reader's memory and time among them.
    """
    ended = False
    for kind, *content in _answers(file, roles, limits, f"{roles.pointer}/source"):
        if kind == "rows":
            yield from (CheckedRow(*row) for row in content[0])
        ended = kind == "end"
    if not ended:
        raise InternalError("the reader of a file ended without a word: its log has the reason")


def describe_confined(file: DataFile, limits: ReadLimits) -> Description:
    """Read all of ``file`` in the child. Raises as :func:`read_confined`, with pointers such as ``/rows/123``."""
    for kind, *content in _answers(file, None, limits, ""):
        if kind == "described":
            rows, columns = content
            return Description(rows, tuple(columns))
    raise InternalError("the reader of a file ended without a word: its log has the reason")


def _answers(file: DataFile, roles: Roles | None, limits: ReadLimits, pointer: str) -> Iterator[list[Any]]:
    """The child's messages; its problem, or how it died, as an exception."""
    request = {
        "path": str(file.path),
        "format": file.format,
        "roles": None if roles is None else asdict(roles),
        "limits": asdict(limits),
    }
    late = threading.Event()
    with _start() as process:

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limits.reader_seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            _ask(process, request)
            for line in process.stdout:
                message = _parse(line)
                if message[0] == "problem":
                    raise _problem(*message[1:])
                yield message
            process.wait()
        finally:
            timer.cancel()
            process.kill()
    _check_end(process.returncode, late.is_set(), limits, pointer)


def _start() -> subprocess.Popen[bytes]:
    env = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    env |= {
        "PYTHONPATH": str(Path(ascribe.__file__).parent.parent),
        "PYTHONUTF8": "1",
        # One thread and one arena: what they reserve counts against the memory limit, used or not.
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }
    command = [sys.executable, "-P", "-m", "ascribe.sources.reader"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)


def _ask(process: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at its start; its exit status says how


def _parse(line: bytes) -> list[Any]:
    try:
        message = json.loads(line)
    except ValueError:
        message = None  # cut off by its death, which is told from the exit status
    return message if isinstance(message, list) and message else ["cut"]


def _problem(kind: str, detail: str, problems: list[dict[str, str]]) -> InvalidInput:
    error = LimitExceeded if kind == "limit" else InvalidInput
    return error(detail, errors=[Problem(**problem) for problem in problems])


def _check_end(status: int, late: bool, limits: ReadLimits, pointer: str) -> None:
    """Raises for a child that did not end well."""
    if late or status == -signal.SIGXCPU:
        message = f"reading the file takes over {limits.reader_seconds:g} seconds, the limit reader_seconds"
        raise LimitExceeded.at(pointer, "limit_exceeded", message)
    if status < 0:
        message = (
            "the file cannot be read: its reader crashed over it; it is damaged, or takes more than "
            f"{limits.reader_memory_bytes} bytes of memory, the limit reader_memory_bytes"
        )
        raise InvalidInput.at(pointer, "unreadable_file", message)
    if status > 0:
        raise InternalError("the reader of a file failed: its log has the reason")
