"""Decodes what the worker stored: float32 vectors and compressed row lists, a piece at a time, without numpy."""

from __future__ import annotations

import math
import operator
import os
import sys
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from ascribe.errors import StorageFailed
from ascribe.ledger.base import Ledger
from ascribe.result import TOP, RowInfo, StoredVectors
from ascribe.results.ranking import RankedOrder, unpack_top
from ascribe.store.remote import Remote

FLOAT_BYTES = 4
INFLATED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Vectors:
    """A job's score vectors, wherever they are: in the ledger, or ``stored`` in a file."""

    ledger: Ledger
    job_id: str
    stored: StoredVectors | None
    files: Remote

    def named(self, names: Sequence[str]) -> Scores:
        """Raises NotReady, Expired, NotFound."""
        if self.stored is None:
            return StoredScores(self.ledger, self.job_id, names)
        self.ledger.read_range(self.job_id, [TOP], 0, 1)  # a file says nothing of an expiry
        from ascribe.results.reading import FileScores  # here alone: pyarrow is large

        return FileScores(self.files, self.stored, names)

    def top(self, order: RankedOrder) -> Mapping[int, float] | None:
        """Of vectors in a file, the start of this order of the mean: scores by index. Raises as :meth:`named`."""
        if self.stored is None:
            return None
        return unpack_top(b"".join(self.ledger.read(self.job_id, TOP)), order)


class Scores(Protocol):
    """Score vectors side by side, all over the same rows."""

    def part(self, start: int, count: int) -> list[array[float]]:
        """Rows ``start`` to ``start + count`` of every vector."""


@dataclass(frozen=True, slots=True)
class StoredScores:
    """Vectors left in the ledger: of each only the wanted part is read."""

    ledger: Ledger
    job_id: str
    names: Sequence[str]

    def part(self, start: int, count: int) -> list[array[float]]:
        raw = self.ledger.read_range(self.job_id, self.names, start * FLOAT_BYTES, count * FLOAT_BYTES)
        return [_floats(piece) for piece in raw]


@dataclass(frozen=True, slots=True)
class HeldScores:
    """One vector in memory."""

    values: array[float]

    def part(self, start: int, count: int) -> list[array[float]]:
        return [self.values[start : start + count]]


@dataclass(frozen=True, slots=True)
class RelativeScores:
    """Scores over the root of each row's self-influence: RelatIF (Barshan et al. 2020, arXiv:2003.11630).

    A row without any has a gradient of zero, and a score of zero.
    """

    scores: Scores
    self_influence: Scores

    def part(self, start: int, count: int) -> list[array[float]]:
        (own,) = self.self_influence.part(start, count)
        weights = [1 / math.sqrt(value) if value > 0 else 0.0 for value in own]
        return [array("f", map(operator.mul, column, weights)) for column in self.scores.part(start, count)]


def scores_of_row(scores: Scores, index: int) -> HeldScores:
    """Score ``index`` of each of these vectors: one train row over all validation rows."""
    values = array("f")
    for score in scores.part(index, 1):
        values.extend(score)
    return HeldScores(values)


def _floats(raw: bytes) -> array[float]:
    scores = array("f")
    scores.frombytes(raw)
    if sys.byteorder == "big":
        scores.byteswap()
    return scores


def iterate_rows(ledger: Ledger, job_id: str, name: str) -> Iterator[RowInfo]:
    """All rows in their order, one at a time."""
    return map(RowInfo.model_validate_json, _lines(ledger.read(job_id, name)))


def read_rows(ledger: Ledger, job_id: str, name: str, wanted: Set[int]) -> dict[int, RowInfo]:
    """The rows at these indices. Stops reading after the last of them."""
    rows: dict[int, RowInfo] = {}
    if wanted:
        last = max(wanted)
        for index, line in enumerate(_lines(ledger.read(job_id, name))):
            if index in wanted:
                rows[index] = RowInfo.model_validate_json(line)
            if index == last:
                break
    return rows


def find_row(ledger: Ledger, job_id: str, name: str, row_id: str) -> int | None:
    """Index of the row with this id."""
    for index, row in enumerate(iterate_rows(ledger, job_id, name)):
        if row.id == row_id:
            return index
    return None


class RowFile:
    """All rows of a job in a temporary file, to be taken in any order: memory holds where each begins, 8 bytes a row.

    Raises StorageFailed: the temporary directory is full or refuses writes.
    """

    def __init__(self, ledger: Ledger, job_id: str, name: str) -> None:
        self._starts = array("Q", [0])
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
            for line in _lines(ledger.read(job_id, name)):
                self._file.write(line)
                self._starts.append(self._starts[-1] + len(line))
            self._file.flush()
        except OSError as error:
            raise StorageFailed(
                "The server's temporary directory takes no more rows: ask for fewer by top_k, or in row order."
            ) from error

    def __getitem__(self, index: int) -> RowInfo:
        start, stop = self._starts[index], self._starts[index + 1]
        return RowInfo.model_validate_json(os.pread(self._file.fileno(), stop - start, start))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of one zlib stream that is cut into ``chunks`` anywhere."""
    stream = zlib.decompressobj()
    rest = b""
    for chunk in chunks:
        while chunk:
            # Rows compress well: a chunk of a mebibyte may hold a hundred of text.
            *whole, rest = (rest + stream.decompress(chunk, INFLATED_BYTES)).split(b"\n")
            chunk = stream.unconsumed_tail
            yield from whole
    rest += stream.flush()
    if rest:
        yield from rest.split(b"\n")
