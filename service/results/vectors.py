"""Decodes what the worker stored: float32 vectors and compressed row lists, chunk by chunk, without numpy."""

from __future__ import annotations

import heapq
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence, Set

from ascribe.ledger.base import Ledger
from ascribe.result import RowInfo


def read_vector(ledger: Ledger, job_id: str, name: str) -> array[float]:
    """Little-endian float32, one score a train row."""
    scores = array("f")
    scores.frombytes(b"".join(ledger.read(job_id, name)))
    if sys.byteorder == "big":
        scores.byteswap()
    return scores


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
    for index, line in enumerate(_lines(ledger.read(job_id, name))):
        if RowInfo.model_validate_json(line).id == row_id:
            return index
    return None


def top(scores: Sequence[float], count: int, *, lowest: bool) -> list[int]:
    """Indices of the ``count`` lowest or highest scores in their order; equal ones stay in row order."""
    pick = heapq.nsmallest if lowest else heapq.nlargest
    return pick(count, range(len(scores)), key=scores.__getitem__)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of one zlib stream that is cut into ``chunks`` anywhere."""
    stream = zlib.decompressobj()
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + stream.decompress(chunk)).split(b"\n")
        yield from whole
    rest += stream.flush()
    if rest:
        yield from rest.split(b"\n")
