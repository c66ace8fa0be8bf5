"""Whole files or none: written beside their place, synced, renamed; and their checksums.

    shard-00000.safetensors     the bytes
    shard-00000.json            the writer's facts and the sha256 of the bytes; written last

A name with a leading dot is nobody's yet: what a dead process left half-written has one.

Where machines share a store the folder is a copy of a part of it: what is written goes there too, what is missing
here is looked for there, and what comes from there is verified before it has its name.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascribe.errors import NoRoom, StorageFailed
from ascribe.fingerprint import file_sha256

if TYPE_CHECKING:
    from ascribe.store.remote import Remote

log = logging.getLogger(__name__)

CACHE = "cache"
"""The folder of the shared store below which entries are."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Damaged(Exception):
    """A file is not what was written: a flipped bit, a torn write, or its bytes are gone."""


class Files:
    """Writes files below ``root`` with a checksum and verifies it when they are read.

    A file is hashed once in the life of this object for each (inode, size, time of change): a warm worker does not
    hash the same gigabytes for every job, and a file that is replaced or written to is hashed again.

    Args:
        remote: the store that machines share, if there is one.
        make_room: called with the size of a file before it is fetched.
    """

    def __init__(self, root: Path, remote: Remote | None, make_room: Callable[[int], None]) -> None:
        self._root, self._remote, self._make_room = root, remote, make_room
        self._verified: dict[tuple[int, int, int, int], str] = {}

    def save(self, path: Path, write: Callable[[Path], object], facts: Mapping[str, Any]) -> None:
        """Write the file by ``write(temporary path)`` and its sidecar with ``facts``, both renamed into place.

        Whatever goes wrong, no half-written file stays behind. The sidecar is last, there before here: what is
        whole here was whole there.

        Raises:
            StorageFailed: the shared store does not take it.
        """
        sidecar = path.with_suffix(".json")
        with _renamed_into_place(sidecar) as note:
            with _renamed_into_place(path) as temporary:
                write(temporary)
                digest = file_sha256(temporary)
                # Before the file has its name: no disk that is full by now leaves one that nothing says is whole.
                note.write_text(json.dumps({**facts, "sha256": digest}), encoding="utf-8")
            self._verified[_identity(path)] = digest
            if self._remote is not None:
                self._remote.put(path, self._name(path))
                self._remote.put(note, self._name(sidecar))

    def facts(self, path: Path) -> dict[str, Any] | None:
        """What the writer said of the file, once its bytes are here and are what was written; None: no such file.

        Raises:
            Damaged: the file is not what was written, and the shared store has no whole one.
            NoRoom: it is in the shared store alone and does not fit here.
            StorageFailed: the shared store fails.
        """
        try:
            found = self._facts_here(path)
        except Damaged:
            fetched = self._fetch(path)
            if fetched is None:
                raise
            log.warning("a file of the cache was damaged and was taken from the shared store again: check this disk")
            return fetched
        return found if found is not None else self._fetch(path)

    def promised(self, path: Path) -> dict[str, Any] | None:
        """What the sidecar says, here or in the shared store: the file itself is neither moved nor verified.

        Raises:
            StorageFailed: the shared store fails.
        """
        sidecar = path.with_suffix(".json")
        try:
            document: bytes | None = sidecar.read_bytes()
        except FileNotFoundError:
            document = None if self._remote is None else self._remote.read(self._name(sidecar))
        if document is None:
            return None
        try:
            return _read_sidecar(document)[0]
        except ValueError:
            return None

    def share(self, path: Path) -> None:
        """See to it that others find a file that :meth:`facts` has found here: it may be older than what is there.

        Raises:
            StorageFailed: the shared store does not take it.
        """
        sidecar = path.with_suffix(".json")
        if self._remote is not None and self._remote.size(self._name(sidecar)) is None:
            self._remote.put(path, self._name(path))
            self._remote.put(sidecar, self._name(sidecar))

    def _facts_here(self, path: Path) -> dict[str, Any] | None:
        sidecar = path.with_suffix(".json")
        if not sidecar.exists():
            return None
        try:
            facts, digest = _read_sidecar(sidecar.read_bytes())
            found = self._sha256(path)
        except (FileNotFoundError, ValueError) as error:
            raise Damaged(path.name) from error
        if digest != found:
            raise Damaged(path.name)
        return facts

    def _fetch(self, path: Path) -> dict[str, Any] | None:
        """The file from the shared store; None: it is not there, or only a part of the pair is."""
        if self._remote is None:
            return None
        sidecar = path.with_suffix(".json")
        document = self._remote.read(self._name(sidecar))
        size = None if document is None else self._remote.size(self._name(path))
        if document is None or size is None:
            return None
        self._make_room(size)
        try:
            facts, digest = _read_sidecar(document)
        except ValueError as error:
            raise Damaged(path.name) from error
        with storage_errors():
            with _renamed_into_place(path) as temporary:
                if not self._remote.get(self._name(path), temporary) or file_sha256(temporary) != digest:
                    raise Damaged(path.name)
            self._verified[_identity(path)] = digest
            with _renamed_into_place(sidecar) as temporary:
                temporary.write_bytes(document)
        return facts

    def _name(self, path: Path) -> str:
        return f"{CACHE}/{path.relative_to(self._root).as_posix()}"

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
            raise NoRoom(
                "the disk of the cache directory is full: free some space, or lower ASCRIBE_CACHE_MAX_BYTES so that "
                "the cache makes room earlier"
            ) from error
        raise StorageFailed(
            f"the cache directory cannot be written or read ({_reason(error)}): check that it is there and its rights"
        ) from error


def _read_sidecar(document: bytes) -> tuple[dict[str, Any], str]:
    """Facts and sha256. Raises ValueError: it is no sidecar."""
    facts = json.loads(document)
    if not isinstance(facts, dict) or not isinstance(digest := facts.pop("sha256", None), str):
        raise ValueError("no sidecar")
    return facts, digest


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
