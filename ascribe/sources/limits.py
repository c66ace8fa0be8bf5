"""How much of a file is read before reading stops: the limits, and the count kept against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ascribe.errors import LimitExceeded

if TYPE_CHECKING:  # the reader's child starts in a tenth of the time without pydantic
    from ascribe.settings import Settings

DENSE_BYTES = 1 << 20
"""Up to here a file may expand as much as it likes: a small one that repeats itself is no attack."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The settings that bound one reading, by the names they have there."""

    max_rows: int
    max_file_bytes: int
    max_line_bytes: int
    max_decompression_ratio: float
    reader_memory_bytes: int
    reader_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> ReadLimits:
        return cls(
            max_rows=settings.max_rows,
            max_file_bytes=settings.max_file_bytes,
            max_line_bytes=settings.max_line_bytes,
            max_decompression_ratio=settings.max_decompression_ratio,
            reader_memory_bytes=settings.reader_memory_bytes,
            reader_seconds=settings.reader_seconds,
        )

    def check_file_bytes(self, size: int, pointer: str) -> None:
        """Raises LimitExceeded for a file (or what it expands to) of ``size`` bytes."""
        if size > self.max_file_bytes:
            message = f"the file has over {self.max_file_bytes} bytes, decompressed, the limit max_file_bytes"
            raise LimitExceeded.at(pointer, "limit_exceeded", message)


class Budget:
    """Counts what a compressed file expands to while it is read."""

    def __init__(self, file_bytes: int, limits: ReadLimits, pointer: str) -> None:
        self._limits, self._pointer = limits, pointer
        self._spent = 0
        self._dense = max(DENSE_BYTES, int(file_bytes * limits.max_decompression_ratio))

    def spend(self, size: int) -> None:
        """Raises LimitExceeded where the file has grown over its bytes or over the ratio."""
        self._spent += size
        self._limits.check_file_bytes(self._spent, self._pointer)
        if self._spent > self._dense:
            ratio = self._limits.max_decompression_ratio
            message = f"the file expands to over {ratio:g} times its size, the limit max_decompression_ratio"
            raise LimitExceeded.at(self._pointer, "limit_exceeded", message)
