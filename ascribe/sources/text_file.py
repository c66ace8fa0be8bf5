"""Lines of a text file, gunzipped where it is gzip, none of them read further than its limit."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.sources.limits import Budget, ReadLimits

_GZIP_MAGIC = b"\x1f\x8b"


class TextFile:
    """A file of rows as bytes. ``row`` is where reading stands, for errors; who makes rows of the lines counts it."""

    def __init__(self, path: Path, limits: ReadLimits, pointer: str) -> None:
        self.row = 0
        self._path, self._limits, self._pointer = path, limits, pointer

    def lines(self) -> Iterator[bytes]:
        """Every line with its end. Raises InvalidInput for broken gzip, LimitExceeded for what is too much."""
        limit = self._limits.max_line_bytes
        with self._path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            budget = Budget(self._path.stat().st_size, self._limits, self._pointer)
            file: BinaryIO = gzip.GzipFile(fileobj=raw) if is_gzip else raw  # type: ignore[assignment]  # reads alike
            while line := self._read(file, limit + 1):
                if len(line) > limit:
                    message = f"the row is longer than {limit} bytes, the limit max_line_bytes"
                    raise self.problem("line_too_long", message, LimitExceeded)
                budget.spend(len(line))
                yield line

    def problem(self, code: str, message: str, kind: type[InvalidInput] = InvalidInput) -> InvalidInput:
        """An error at the present row."""
        return kind.at(f"{self._pointer}/rows/{self.row}", code, message)

    def _read(self, file: BinaryIO, size: int) -> bytes:
        try:
            return file.readline(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidInput.at(
                self._pointer, "malformed_file", "the file is truncated or damaged: its gzip data ends or breaks"
            ) from error
