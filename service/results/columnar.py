"""Scores as Arrow and Parquet, a record batch a slab. Imported when the first one is asked for: pyarrow is large."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from service.results.table import Slab, Table

PREFIX = "score:"
"""In front of a validation row's id, the name of its column in a matrix."""


def arrow_stream(table: Table, slabs: Iterator[Slab]) -> Iterator[bytes]:
    """The Arrow IPC streaming format."""
    schema, sink = _schema(table), _Sink()
    with pa.ipc.new_stream(sink, schema) as writer:
        for slab in slabs:
            writer.write_batch(_batch(schema, slab))
            yield sink.take()
    yield sink.take()


def parquet(table: Table, slabs: Iterator[Slab]) -> Iterator[bytes]:
    """A Parquet file with a row group a slab."""
    schema, sink = _schema(table), _Sink()
    with pq.ParquetWriter(cast(IO[bytes], sink), schema) as writer:
        for slab in slabs:
            writer.write_batch(_batch(schema, slab))
            yield sink.take()
    yield sink.take()


def _schema(table: Table) -> pa.Schema:
    names = ["score"] if table.scored.columns is None else [PREFIX + name for name in table.scored.columns]
    fields: list[pa.Field[Any]] = [pa.field("index", pa.int64())]
    fields += [pa.field(name, pa.string()) for name in ("id", "label", "text")]
    fields += [pa.field(name, pa.float32()) for name in names]
    return pa.schema(fields, metadata=_metadata(table))


def _metadata(table: Table) -> dict[str | bytes, str | bytes]:
    """What a file must say of itself once it has left the server."""
    diagnostics = table.manifest.diagnostics
    on_path = {point.factor: point for point in diagnostics.damping_path}
    point = None if table.damping is None else on_path.get(table.damping)
    status = diagnostics.status if point is None else point.status
    residual = diagnostics.worst_relative_residual if point is None else point.worst_relative_residual
    said = {
        "job_id": table.job.id,
        "vector": table.scored.vector,
        "validation_id": table.validation_id,
        "token": None if table.token is None else str(table.token),
        "train_id": table.train_id,
        "relative": "true" if table.relative else None,
        "order": table.order,
        "sign": table.sign,
        "damping": None if table.damping is None else repr(table.damping),
        "status": status.value,
        "advice": status.advice,
        "worst_relative_residual": repr(residual),
    }
    return {f"ascribe.{name}": value for name, value in said.items() if value is not None}


def _batch(schema: pa.Schema, slab: Slab) -> pa.RecordBatch:
    rows = slab.rows
    columns: list[Any] = [
        pa.array(slab.indices, pa.int64()),
        pa.array([row.id for row in rows], pa.string()),
        pa.array([row.label for row in rows], pa.string()),
        pa.array([row.text for row in rows], pa.string()),
    ]
    columns += [
        pa.Array.from_buffers(pa.float32(), len(scores), [None, pa.py_buffer(scores)]) for scores in slab.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Sink(io.RawIOBase):
    """A file that only remembers what was written since the last look."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._position += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
