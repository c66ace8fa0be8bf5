"""Writes score vectors as a Parquet file. Imported when the first one is written: pyarrow is large."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ascribe.result import StoredVectors
from ascribe.results.columns import Columns
from ascribe.results.footer import footer_sha256

GROUP_CELLS = 1 << 22
"""Scores of a row group, 16 MiB: what writing holds at once, and reading all vectors."""
FEWEST_ROWS, MOST_ROWS = 1 << 10, 1 << 16
"""Of a row group: a piece of a vector costs some 80 bytes of footer and a request, and is read as a whole."""


def write(columns: Columns, path: Path) -> StoredVectors:
    """The vectors as the file ``path``, which is of the same name where it will be stored.

    Raises:
        OSError: the disk takes no more.
    """
    step = min(max(GROUP_CELLS // len(columns.names), FEWEST_ROWS), MOST_ROWS)
    schema = pa.schema([pa.field(name, pa.float32(), nullable=False) for name in columns.names])
    with pq.ParquetWriter(
        path,
        schema,
        compression="none",  # scores are noise to a compressor: it would save some 8 %
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        content = hashlib.sha256()
        for start in range(0, columns.rows, step):
            stop = min(start + step, columns.rows)
            values = [pa.py_buffer(each) for each in columns.part(start, stop)]
            for each in values:
                content.update(each)
            arrays = [pa.Array.from_buffers(pa.float32(), stop - start, [None, each]) for each in values]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=step)
        # Vectors of the same shape would have the same footer otherwise.
        writer.add_key_value_metadata({"ascribe.values_sha256": content.hexdigest()})
    with path.open("rb") as file:
        return StoredVectors(
            name=path.name, bytes=path.stat().st_size, footer_sha256=footer_sha256(file), group_rows=step
        )
