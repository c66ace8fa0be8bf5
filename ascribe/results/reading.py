"""Reads score vectors from a Parquet file on the store, a part at a time. Imported when the first one is read."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ascribe.errors import StorageFailed
from ascribe.ledger.chunks import pieces
from ascribe.result import StoredVectors
from ascribe.results.footer import damaged, footer_sha256
from ascribe.store.remote import Remote

BATCH = 64
"""Vectors that pyarrow reads at a time: it holds tens of kilobytes a vector beside the scores."""


class FileScores:
    """Some vectors of a file, side by side. The file is looked for at the first read.

    The row group read last is kept: slabs that follow one another read each group once, however they are cut. All that
    is read is checked, the file's end against the manifest and its pages against their checksums.
    """

    def __init__(self, files: Remote, stored: StoredVectors, names: Sequence[str]) -> None:
        self._files, self._stored, self._names = files, stored, names
        self._file: pq.ParquetFile | None = None
        self._held: tuple[int, list[array[float]]] | None = None

    def part(self, start: int, count: int) -> list[array[float]]:
        """Rows ``start`` to ``start + count`` of every vector.

        Raises:
            StorageFailed: the store is away, or the file is not in it.
            ResultDamaged: the file is not what was written.
        """
        found = [array("f") for _ in self._names]
        for index, begin, end in pieces(start, count, self._stored.group_rows):
            for values, piece in zip(found, self._group(index), strict=True):
                values.extend(piece[begin:end])
        return found

    def _group(self, index: int) -> list[array[float]]:
        """A row group of the vectors."""
        if self._held is None or self._held[0] != index:
            self._held = None  # before the next one is there: two would be twice the memory
            with _damage():
                file = self._file = self._file or self._open()
                self._held = index, [values for names in self._batches() for values in _read(file, index, names)]
        return self._held[1]

    def _batches(self) -> Iterator[list[str]]:
        return (list(self._names[start : start + BATCH]) for start in range(0, len(self._names), BATCH))

    def _open(self) -> pq.ParquetFile:
        size = self._files.size(self._stored.name)
        if size is None:
            raise StorageFailed(
                "The stored scores of this job are not where this server looks for them: give it and the workers the "
                "same ASCRIBE_STORE_URL, or the same folder as ASCRIBE_RESULTS_DIR."
            )
        if size != self._stored.bytes:
            raise damaged()
        file = self._files.open(self._stored.name)
        if footer_sha256(file) != self._stored.footer_sha256:
            raise damaged()
        return pq.ParquetFile(file, page_checksum_verification=True)


@contextmanager
def _damage() -> Iterator[None]:
    """What pyarrow says of bytes that are wrong; what the store itself raises is none of its errors."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise damaged() from error


def _read(file: pq.ParquetFile, index: int, names: list[str]) -> Iterator[array[float]]:
    group = file.read_row_group(index, columns=names, use_threads=False)
    return (_floats(group.column(name)) for name in names)


def _floats(column: pa.ChunkedArray[Any]) -> array[float]:
    values = array("f")
    for chunk in column.chunks:
        buffer = chunk.buffers()[1]
        assert buffer is not None
        values.frombytes(memoryview(buffer)[4 * chunk.offset : 4 * (chunk.offset + len(chunk))])
    return values
