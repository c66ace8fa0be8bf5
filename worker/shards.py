"""A pass over rows, kept in one file a shard: what is there is found, what is missing is computed, by whoever has it.

    <folder>/shard-00000.safetensors   what the pass made of the shard's rows
    <folder>/shard-00000.json          which rows, what else is known of them, and the sha256; written last: its
                                       presence says the shard is whole

Every file is written under a temporary name and renamed, so a reader sees a whole file or none, and two workers that
write one shard write the same bytes. What a pass makes of a shard depends on nothing but the shard's rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ascribe.store import Damaged, Store
from worker.saved import Saved
from worker.storage import storage_errors, write_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Span:
    """Rows ``start`` to ``stop`` of a dataset: shard ``index``."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def spans(rows: int, shard_rows: int) -> tuple[Span, ...]:
    starts = range(0, rows, shard_rows)
    return tuple(Span(index, start, min(start + shard_rows, rows)) for index, start in enumerate(starts))


@dataclass(frozen=True)
class Pass:
    """What is computed of every shard, and where it is kept.

    Attributes:
        name: of the part of work that a shard is, without the shard's number. It says what is computed and ends with
            the fingerprint of everything that can change a bit of it.
        what: the same in words, for a warning.
        folder, stem: an open entry of the store, and how its files of this pass begin.
        compute: tensors of a shard, and facts of its rows that JSON holds exactly.
        size: bytes of a shard's tensors.
    """

    name: str
    what: str
    folder: Path
    stem: str
    spans: Sequence[Span]
    parameters: int
    compute: Callable[[Span], Saved]
    size: Callable[[Span], int]


class Shards:
    """The files of a pass. Those on this disk are verified before they count as there; others once they are read."""

    def __init__(self, of: Pass, store: Store) -> None:
        self.of, self.store = of, store
        self._facts: dict[int, Mapping[str, Any]] = {}
        self._missed: set[int] = set()
        self._damaged: dict[int, None] = {}

    def part(self, span: Span) -> str:
        """Readable, and in the order of the rows when sorted."""
        return f"{self.of.name}:{span.index:05d}"

    def look(self, span: Span) -> bool:
        """Whether the shard is in the store. Raises StorageFailed."""
        path = self._path(span)
        with storage_errors():
            there = self._verified(span) if path.exists() else self._accept(span, self.store.files.promised(path))
        if not there:
            self._missed.add(span.index)
        return there

    def fill(self, span: Span) -> None:
        """Compute the shard and keep it. Raises StorageFailed, and what computing it raises."""
        saved = self.of.compute(span)
        self.store.make_room(self.of.size(span))  # another job may have taken the room since
        facts = {**saved.facts, **self._expected(span)}
        with storage_errors():
            self.store.files.save(self._path(span), lambda path: write_tensors(path, saved.tensors), facts)
        self._accept(span, facts)

    def tensor(self, span: Span, name: str) -> Tensor:
        """A read-only view into the shard's file, which is fetched if need be, verified, and computed again where it
        is gone or not what was written. Raises StorageFailed, and what computing it raises."""
        with storage_errors():
            whole = self._verified(span)
        if not whole:
            self._missed.add(span.index)
            self.fill(span)
        with storage_errors(), safe_open(self._path(span), framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def facts(self, span: Span) -> Mapping[str, Any]:
        """What is known of a shard that was looked for and found, or filled."""
        return self._facts[span.index]

    @property
    def rows(self) -> int:
        return self.of.spans[-1].stop

    @property
    def found_rows(self) -> int:
        """Rows of the shards that were in the store, whole, when they were first looked for and when they were read."""
        return self.rows - sum(span.rows for span in self.of.spans if span.index in self._missed)

    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the shards that were there."""
        if not self._damaged:
            return ()
        damaged = [self.of.spans[index] for index in self._damaged]
        named = ", ".join(f"{span.start} to {span.stop - 1}" for span in damaged[:5])
        more = f" and {len(damaged) - 5} more shards" if len(damaged) > 5 else ""
        return (
            f"cached {self.of.what} rows {named}{more} did not match their checksum and were computed again: check the "
            "disk of the cache directory",
        )

    def _verified(self, span: Span) -> bool:
        try:
            return self._accept(span, self.store.files.facts(self._path(span)))
        except Damaged:
            self._damaged[span.index] = None
            log.warning("a cached shard does not match its checksum", extra={"part": self.part(span)})
            return False

    def _accept(self, span: Span, facts: Mapping[str, Any] | None) -> bool:
        expected = self._expected(span)
        if facts is None or {name: facts.get(name) for name in expected} != expected:
            return False
        self._facts[span.index] = facts
        return True

    def _expected(self, span: Span) -> dict[str, object]:
        return {"rows": [span.start, span.stop], "parameters": self.of.parameters}

    def _path(self, span: Span) -> Path:
        return self.of.folder / f"{self.of.stem}-{span.index:05d}.safetensors"
