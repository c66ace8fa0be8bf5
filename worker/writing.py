"""A job's score vectors on their way out: into the ledger, or into a file where they are large."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from numpy import ndarray
from torch import Tensor

from ascribe.result import MEAN, TOP, StoredVectors
from ascribe.results.columns import Columns
from ascribe.results.ranking import pack_top
from worker.progress import Reporter

if TYPE_CHECKING:
    from worker.pipeline import Sink

CHUNK_BYTES = 1 << 20


def write_vectors(vectors: Mapping[str, Tensor], sink: Sink, reporter: Reporter) -> StoredVectors | None:
    """Hand the vectors over; one step of progress each. Where they are, None for the ledger.

    Raises:
        StorageFailed: a file does not take them.
        Cancelled: from the reporter.
    """

    def part(start: int, stop: int) -> Iterator[memoryview]:
        reporter.advance(0)  # a row group is a batch: a cancel is noticed here
        return (_floats(vector_N[start:stop]).data for vector_N in vectors.values())

    stored = sink.spill(Columns(tuple(vectors), len(vectors[MEAN]), part))
    if stored is not None:
        sink.stage(TOP, [pack_top(array("f", _floats(vectors[MEAN]).tobytes()))])
        reporter.advance(len(vectors))
        return stored
    for name, vector_N in vectors.items():
        sink.stage(name, chunks(_floats(vector_N).astype("<f4").tobytes()))
        reporter.advance()
    return None


def chunks(data: bytes) -> Iterable[bytes]:
    return (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))


def _floats(values_N: Tensor) -> ndarray:
    return values_N.to(torch.float32).numpy()
