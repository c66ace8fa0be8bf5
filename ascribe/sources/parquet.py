"""Rows of a Parquet file, a few at a time, of the asked columns alone. Trusts nothing the footer says.

pyarrow is imported here and only in the reader's child: it is native code over bytes that anyone may have written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.sources.limits import Budget, ReadLimits
from ascribe.sources.row_checks import ColumnNames, missing_column

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 256
MAX_FOOTER_BYTES = 16 << 20
_MAGIC, _ENCRYPTED_MAGIC = b"PAR1", b"PARE"


class ParquetRows:
    """An open file; ``pointer`` is where it stands in the spec. Raises InvalidInput for what is no Parquet file."""

    def __init__(self, path: Path, limits: ReadLimits, pointer: str) -> None:
        self._path, self._limits, self._pointer = path, limits, pointer
        self._check_magic()
        self._file = self._guarded(lambda: _open(path))

        self.columns = tuple(self._file.schema_arrow.names)
        if len(set(self.columns)) != len(self.columns):
            raise InvalidInput.at(self._pointer, "duplicate_column", "the file names a column twice")

    def readable_columns(self) -> list[str]:
        """Those that could serve some role, and so are worth a look."""
        return [field.name for field in self._file.schema_arrow if _holds(field.type, integers=True)]

    def columns_of(self, names: ColumnNames, pointer: str) -> list[str]:
        """The file's columns for the roles; ``pointer`` is the dataset's.

        Raises InvalidInput for one that is missing or of a type that does not fit.
        """
        schema = self._file.schema_arrow
        described = [f"{field.name} ({field.type})" for field in schema]
        chosen = []
        for role, name in names:
            if role == "id" and name not in schema.names:
                continue
            if name not in schema.names:
                raise missing_column(pointer, role, described)
            integers = role in ("id", "label")
            if not _holds(schema.field(name).type, integers=integers):
                wanted = "texts or integers" if integers else "texts"
                message = f"the column must hold {wanted}, it holds {str(schema.field(name).type)[:64]}"
                raise InvalidInput.at(f"{pointer}/columns/{role}", "column_type", message)
            chosen.append(name)
        return chosen

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row as a dict of ``columns``. Raises InvalidInput and LimitExceeded."""
        metadata = self._file.metadata
        budget = Budget(self._path.stat().st_size, self._limits, self._pointer)
        index = 0
        batches = self._file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False)
        while (batch := self._guarded(lambda: next(batches, None))) is not None:
            for row in self._guarded(batch.to_pylist):
                size = sum(len(value.encode()) if isinstance(value, str) else 8 for value in row.values())
                if size > self._limits.max_line_bytes:
                    message = f"the row has over {self._limits.max_line_bytes} bytes, the limit max_line_bytes"
                    raise LimitExceeded.at(f"{self._pointer}/rows/{index}", "line_too_long", message)
                budget.spend(size)
                yield row
                index += 1
        if index != metadata.num_rows:
            raise self._malformed("its footer states another number of rows than it holds")

    def _check_magic(self) -> None:
        with self._path.open("rb") as file:
            head = file.read(4)
            file.seek(max(0, self._path.stat().st_size - 8))
            footer_bytes, tail = int.from_bytes(file.read(4), "little"), file.read(4)
        if _ENCRYPTED_MAGIC in (head, tail):
            raise self._encrypted()
        if (head, tail) != (_MAGIC, _MAGIC):
            raise self._malformed("it does not begin and end as Parquet does")
        if footer_bytes > min(MAX_FOOTER_BYTES, self._path.stat().st_size):
            raise self._malformed("its footer cannot be as long as it says")

    def _guarded(self, read: Any) -> Any:
        """What ``read`` gives; pyarrow's many ways to fail as one. A lack of memory is told apart by the caller."""
        try:
            return read()
        except MemoryError:
            raise
        except Exception as error:  # Arrow raises OSError, ValueError, KeyError, its own, at damage
            if "crypt" in str(error).lower():
                raise self._encrypted() from error
            raise self._malformed("it cannot be decoded") from error

    def _malformed(self, how: str) -> InvalidInput:
        return InvalidInput.at(self._pointer, "malformed_file", f"the file is no whole Parquet file: {how}")

    def _encrypted(self) -> InvalidInput:
        return InvalidInput.at(self._pointer, "encrypted_file", "the Parquet file is encrypted: store it in the clear")


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    # Read in pieces rather than a column chunk at a time: a chunk is as large as whoever wrote it liked.
    return pq.ParquetFile(
        path,
        buffer_size=1 << 20,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=MAX_FOOTER_BYTES,
        thrift_container_size_limit=1 << 20,
    )


def _holds(type_: pa.DataType, *, integers: bool) -> bool:
    """Texts (or integers where they may be), written plainly or as a dictionary."""
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return is_text or (integers and pa.types.is_integer(type_))
