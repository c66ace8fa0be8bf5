"""Files on their way to the API and back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ascribe.client.errors import FileProblem

PIECE_BYTES = 1 << 20

DATASET_TYPES: Mapping[str, str] = {
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".json": "application/x-ndjson",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".parquet": "application/vnd.apache.parquet",
}
"""By the end of the file's name; ``.gz`` after it is looked through, as the API looks through gzip."""


LINES = tuple(ending for ending, kind in DATASET_TYPES.items() if kind == "application/x-ndjson")


def media_type(path: Path) -> str:
    """Of a dataset, by the file's ending. Raises FileProblem."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    try:
        return DATASET_TYPES[plain.suffix.lower()]
    except KeyError:
        raise FileProblem(f"a dataset's file name ends in one of {' '.join(DATASET_TYPES)}, or .gz: {path}") from None


def lines_path(path: Path) -> Path:
    """``path``, of a file of JSON lines. Raises FileProblem: its ending promises something else."""
    if path.suffix.lower() not in LINES:
        raise FileProblem(f"the rows are written as JSON lines: let the file's name end in one of {' '.join(LINES)}")
    return path


def size(path: Path) -> int:
    """Bytes of a regular file. Raises FileProblem."""
    try:
        if not path.is_file():
            raise FileProblem(f"not a file: {path}")
        return path.stat().st_size
    except OSError as error:
        raise FileProblem(f"cannot read {path}: {error.strerror}") from error


def pieces(path: Path) -> Iterator[bytes]:
    """The content, a mebibyte at a time. Raises FileProblem."""
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise FileProblem(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def landing(path: Path) -> Iterator[IO[bytes]]:
    """A file under another name beside ``path``, which becomes ``path`` when all went well and is gone when not.

    Raises FileProblem.
    """
    if not path.name:
        raise FileProblem(f"not a file's name: {path}")
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise FileProblem(f"cannot write {path}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
