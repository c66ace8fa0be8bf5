"""Rankings of score vectors. A few are kept, so that the pages of one ranking sort it once."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from ascribe.results.ranking import RankedOrder, rank

KEPT = 8
"""Rankings; four bytes a row each."""


class Rankings:
    """The least recently asked for goes first. Scores never change under a job's id, so none grows stale."""

    def __init__(self, keep: int = KEPT) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._ranked: OrderedDict[tuple[str, ...], array[int]] = OrderedDict()

    def get(self, key: tuple[str, ...], scores: array[float], order: RankedOrder) -> Sequence[int]:
        """The ranking of the vector that ``key`` names, sorted now or before."""
        with self._lock:
            if key in self._ranked:
                self._ranked.move_to_end(key)
                return self._ranked[key]
        indices = rank(scores, order)
        with self._lock:
            self._ranked[key] = indices
            while len(self._ranked) > self._keep:
                self._ranked.popitem(last=False)
        return indices
