"""Whole files or none: written beside their place, synced, renamed; and their checksums.

    shard-00000.safetensors     the bytes
    shard-00000.json            the writer's facts and the sha256 of the bytes; written last

A name with a leading dot is nobody's yet: what a dead process left half-written has one.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ascribe.errors import StorageFailed
from ascribe.fingerprint import file_sha256

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Damaged(Exception):
    """A file is not what was written: a flipped bit, a torn write, or its bytes are gone."""


class Files:
    """Writes files with a checksum and verifies it when they are read.

    A file is hashed once in the life of this object for each (inode, size, time of change): a warm worker does not
    hash the same gigabytes for every job, and a file that is replaced or written to is hashed again.
    """

    def __init__(self) -> None:
        self._verified: dict[tuple[int, int, int, int], str] = {}

    def save(self, path: Path, write: Callable[[Path], object], facts: Mapping[str, Any]) -> None:
        """Write the file by ``write(temporary path)`` and its sidecar with ``facts``, both renamed into place.

        Whatever goes wrong, no half-written file stays behind.
        """
        with _renamed_into_place(path) as temporary:
            write(temporary)
            digest = file_sha256(temporary)
        self._verified[_identity(path)] = digest
        with _renamed_into_place(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({**facts, "sha256": digest}), encoding="utf-8")

    def facts(self, path: Path) -> dict[str, Any] | None:
        """What the writer said of the file, once its bytes are seen to be what was written; None: no such file.

        Raises:
            Damaged: the file is not what was written.
        """
        sidecar = path.with_suffix(".json")
        if not sidecar.exists():
            return None
        try:
            facts = json.loads(sidecar.read_bytes())
            found = self._sha256(path)
        except (FileNotFoundError, ValueError) as error:
            raise Damaged(path.name) from error
        if not isinstance(facts, dict) or facts.pop("sha256", None) != found:
            raise Damaged(path.name)
        return facts

    def _sha256(self, path: Path) -> str:
        identity = _identity(path)
        if identity not in self._verified:
            self._verified[identity] = file_sha256(path)
        return self._verified[identity]


@contextmanager
def storage_errors() -> Iterator[None]:
    """What the operating system says of a disk, as StorageFailed."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFailed(
                "the disk of the cache directory is full: free some space, or lower ASCRIBE_CACHE_MAX_BYTES so that "
                "the cache makes room earlier"
            ) from error
        raise StorageFailed(
            f"the cache directory cannot be written or read ({_reason(error)}): check that it is there and its rights"
        ) from error


def _reason(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _identity(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def _renamed_into_place(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
