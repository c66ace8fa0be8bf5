"""Starts the reader's child for a file, and makes its answer, its silence or its death an answer of ours."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import ascribe
from ascribe.errors import Busy, InternalError, InvalidInput, LimitExceeded, Problem
from ascribe.sources.limits import ReadLimits
from ascribe.sources.reading import DataFile, Description, Roles
from ascribe.sources.row_checks import CheckedRow

log = logging.getLogger(__name__)

READERS = 4
SLOT_SECONDS = 10.0
_slots = threading.BoundedSemaphore(READERS)
"""Each reader may take as much memory as its limit: only so many at once, whatever many requests ask for."""

_SILENT = "the reader of a file failed; the log has the reason, at level debug"
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""No more of ours goes to a process that may be taken over: the environment holds keys."""


def read_confined(file: DataFile, roles: Roles, limits: ReadLimits) -> Iterator[CheckedRow]:
    """The rows of ``file``, checked in the child.

    Raises:
        InvalidInput: problems of the rows or the file; also a file that its reader did not survive.
        LimitExceeded: what is over a limit, the reader's memory and time among them.
        Busy: too many files are being read.
    """
    for kind, *content in _answers(file, roles, limits, f"{roles.pointer}/source"):
        if kind == "rows":
            yield from (CheckedRow(*row) for row in content[0])
        elif kind == "end":
            return
    raise InternalError(_SILENT)


def describe_confined(file: DataFile, limits: ReadLimits) -> Description:
    """Read all of ``file`` in the child. Raises as :func:`read_confined`, with pointers such as ``/rows/123``."""
    for kind, *content in _answers(file, None, limits, ""):
        if kind == "described":
            rows, columns = content
            return Description(rows, tuple(columns))
    raise InternalError(_SILENT)


def _answers(file: DataFile, roles: Roles | None, limits: ReadLimits, pointer: str) -> Iterator[list[Any]]:
    """The child's messages; its problem, or how it died, as an exception."""
    request = {
        "path": str(file.path),
        "format": file.format,
        "roles": None if roles is None else asdict(roles),
        "limits": asdict(limits),
    }
    late = threading.Event()
    with _slot(), tempfile.TemporaryFile() as said, _start(said) as process:

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limits.reader_seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            _ask(process, request)
            while message := _message(process.stdout.readline(_most_bytes(limits))):
                if message[0] == "problem":
                    raise _problem(*message[1:])
                yield message
            if message is not None:
                process.wait()
        finally:
            timer.cancel()
            process.kill()
        if process.wait() != 0:
            said.seek(0)
            log.debug("reader of a file failed", extra={"said": said.read().decode(errors="replace")})
            _check_end(process.returncode, late.is_set(), limits, pointer)


@contextmanager
def _slot() -> Iterator[None]:
    if not _slots.acquire(timeout=SLOT_SECONDS):
        raise Busy("As many files are being read as this server reads at once: try again.")
    try:
        yield
    finally:
        _slots.release()


def _start(stderr: IO[bytes]) -> subprocess.Popen[bytes]:
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
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env)


def _ask(process: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at its start; its exit status says how


def _most_bytes(limits: ReadLimits) -> int:
    """No honest message is longer: JSON needs up to six bytes a character, and a row may top a full message up."""
    return 16 * limits.max_line_bytes + (1 << 20)


def _message(line: bytes) -> list[Any] | None:
    """Empty at the end. None for what is no message: cut off by the child's death, or by a child that is not ours."""
    try:
        message = json.loads(line) if line else []
    except ValueError:
        return None
    return message if isinstance(message, list) else None


def _problem(kind: str, detail: str, problems: list[dict[str, str]]) -> InvalidInput:
    error = LimitExceeded if kind == "limit" else InvalidInput
    return error(detail, errors=[Problem(**problem) for problem in problems])


def _check_end(status: int, late: bool, limits: ReadLimits, pointer: str) -> None:
    """Raises what it means that a child ended with ``status``."""
    if late or status == -signal.SIGXCPU:
        message = f"reading the file takes over {limits.reader_seconds:g} seconds, the limit reader_seconds"
        raise LimitExceeded.at(pointer, "limit_exceeded", message)
    if status < 0:
        message = (
            "the file cannot be read: its reader crashed over it; it is damaged, or takes more than "
            f"{limits.reader_memory_bytes} bytes of memory, the limit reader_memory_bytes"
        )
        raise InvalidInput.at(pointer, "unreadable_file", message)
    raise InternalError(_SILENT)
