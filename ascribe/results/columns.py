"""Score vectors side by side, before they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@dataclass(frozen=True, slots=True)
class Columns:
    """``part(start, stop)``: float32 values of these rows, vector by vector in the order of ``names``."""

    names: Sequence[str]
    rows: int
    part: Callable[[int, int], Iterable[ReadableBuffer]]

    @property
    def bytes(self) -> int:
        return 4 * len(self.names) * self.rows
