"""Arrow record batches out of a reply's pieces. pyarrow and pandas are extras, loaded when first wanted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ascribe.client.errors import MissingExtra, UnexpectedReply

if TYPE_CHECKING:
    import pyarrow

NextPiece = Callable[[], bytes]
"""Blocks for the next piece of the body; empty at its end."""


def require(package: str, extra: str) -> Any:
    """The package. Raises MissingExtra."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"this needs {package}: pip install 'ascribe[{extra}]'") from error


def batches(next_piece: NextPiece) -> Iterator[pyarrow.RecordBatch]:
    """Each batch as soon as its bytes are there. Raises UnexpectedReply."""
    with _reader(next_piece) as reader:
        yield from reader


def table(next_piece: NextPiece) -> pyarrow.Table:
    """All batches; of no rows, but with its columns, where there are none. Raises UnexpectedReply."""
    with _reader(next_piece) as reader:
        return reader.read_all()


@contextmanager
def _reader(next_piece: NextPiece) -> Iterator[pyarrow.RecordBatchReader]:
    pa = require("pyarrow", "arrow")
    try:
        with pa.ipc.open_stream(io.BufferedReader(_Body(next_piece), buffer_size=1 << 16)) as reader:
            yield reader
    except (pa.ArrowInvalid, OSError) as error:
        raise UnexpectedReply("the scores are not a whole Arrow stream") from error


class _Body(io.RawIOBase):
    """The pieces as the file that pyarrow wants to read."""

    def __init__(self, next_piece: NextPiece) -> None:
        self._next = next_piece
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = self._next()
            if not piece:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
