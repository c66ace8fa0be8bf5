"""Entries on disk: pinned while in use, the least recently used ones removed when room is needed.

    <root>/<kind>/<key>/          one entry: gradients, curvature or solutions under a content key
    <root>/<kind>/<key>/.lock     held shared by whoever uses the entry; its time of change is the last use
    <root>/<kind>/.removed-*      on its way out

The lock is the kernel's (flock): it ends with the process that held it, however that ended. Every process on the
folder goes by the same locks, so workers, other machines' workers on a file system that carries flock, and the
command line can share a cache.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ascribe.errors import StorageFailed
from ascribe.store.files import Files, storage_errors

LOCK = ".lock"
PLAIN = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it was when looked at. ``pinned``: somebody uses it right now."""

    kind: str
    key: str
    bytes: int
    used_at: datetime
    pinned: bool


class Store:
    """A folder of entries.

    Args:
        root: made when it is first needed.
        max_bytes: what all entries together may take; None for no limit but the disk's.
        reserve_bytes: disk space that is left free.
    """

    def __init__(self, root: Path, *, max_bytes: int | None, reserve_bytes: int = 0) -> None:
        self.root = root
        self.files = Files()
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes

    @contextmanager
    def open(self, kind: str, key: str) -> Iterator[Path]:
        """The entry's folder, made if need be. Nobody removes it inside the block, whatever happens to its files.

        Raises:
            StorageFailed: the folder cannot be made.
        """
        with storage_errors():
            handle = _pin(self._folder(kind, key))
        try:
            yield self._folder(kind, key)
        finally:
            with suppress(OSError):
                os.utime(handle)
            os.close(handle)

    def peek(self, kind: str, key: str) -> bool:
        """Whether the entry is there; no use of it."""
        return self._folder(kind, key).is_dir()

    def entries(self) -> list[Entry]:
        """Every entry, the least recently used first.

        Raises:
            StorageFailed: the folder cannot be read.
        """
        with storage_errors():
            folders = [folder for kind in _folders(self.root) for folder in _folders(kind)]
            found = [entry for folder in folders if (entry := _look(folder)) is not None]
        return sorted(found, key=lambda entry: entry.used_at)

    def remove(self, kind: str, key: str) -> bool:
        """Remove the entry at once and as a whole; False when it is in use or not there.

        Raises:
            StorageFailed: the folder cannot be changed.
        """
        folder = self._folder(kind, key)
        leaving = folder.with_name(f".removed-{secrets.token_hex(8)}")
        with storage_errors():
            try:
                handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
            except (FileNotFoundError, NotADirectoryError):
                return False
            try:
                if not (_locked_alone(handle) and _is_at(handle, folder / LOCK)):
                    return False
                folder.rename(leaving)
            finally:
                os.close(handle)
            shutil.rmtree(leaving, ignore_errors=True)  # whoever makes room next finishes the job
        return True

    def make_room(self, bytes_needed: int) -> None:
        """Remove the least recently used entries that nobody uses until ``bytes_needed`` more fit.

        Nothing is removed when that would not be enough. One process at a time.

        Raises:
            StorageFailed: they cannot fit; the message has the figures.
        """
        with storage_errors():
            self.root.mkdir(parents=True, exist_ok=True)
        with self._alone():
            for leftover in self.root.glob("*/.removed-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            entries = self.entries()
            held = sum(entry.bytes for entry in entries)
            loose = [entry for entry in entries if not entry.pinned]
            if self._excess(bytes_needed, held) > sum(entry.bytes for entry in loose):
                raise self._no_room(bytes_needed, held - sum(entry.bytes for entry in loose))
            for entry in loose:
                if self._excess(bytes_needed, held) <= 0:
                    return
                if self.remove(entry.kind, entry.key):
                    held -= entry.bytes
            if self._excess(bytes_needed, held) > 0:  # taken into use, or the disk filled, since it was looked at
                raise self._no_room(bytes_needed, held)

    def _excess(self, bytes_needed: int, held: int) -> int:
        """Bytes that have to go before ``bytes_needed`` more fit the limit and the disk."""
        with storage_errors():
            over_disk = bytes_needed + self._reserve_bytes - shutil.disk_usage(self.root).free
        over_limit = 0 if self._max_bytes is None else held + bytes_needed - self._max_bytes
        return max(over_disk, over_limit)

    def _no_room(self, bytes_needed: int, in_use: int) -> StorageFailed:
        limit = "no limit" if self._max_bytes is None else f"a limit of {_size(self._max_bytes)}"
        return StorageFailed(
            f"the cache needs {_size(bytes_needed)} more and cannot make room: {limit}, {_size(in_use)} in use by "
            f"running jobs, {_size(shutil.disk_usage(self.root).free)} free on the disk of which "
            f"{_size(self._reserve_bytes)} stay free. Use fewer rows or parameters, wait for running jobs, free disk "
            "space, or raise ASCRIBE_CACHE_MAX_BYTES"
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with storage_errors():
            handle = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _folder(self, kind: str, key: str) -> Path:
        assert PLAIN.fullmatch(kind), "a kind is a plain name"
        assert PLAIN.fullmatch(key), "a key is a plain name"
        return self.root / kind / key


def _pin(folder: Path) -> int:
    """A shared lock on the entry, made if need be; what dead writers left in it is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            continue  # removed in between
        if _locked_alone(handle) and _is_at(handle, folder / LOCK):
            for temporary in folder.glob(".*"):
                if temporary.name != LOCK:
                    temporary.unlink(missing_ok=True)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if _is_at(handle, folder / LOCK):
            os.utime(handle)
            return handle
        os.close(handle)


def _locked_alone(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``: a lock on a removed entry protects nothing."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _look(folder: Path) -> Entry | None:
    """The entry as it stands; None when it goes away under our eyes."""
    try:
        lock = folder / LOCK
        used = (lock if lock.exists() else folder).stat().st_mtime
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Entry(folder.parent.name, folder.name, size, datetime.fromtimestamp(used, UTC), _in_use(lock))
    except FileNotFoundError:
        return None


def _in_use(lock: Path) -> bool:
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False  # from before there were locks
    try:
        return not _locked_alone(handle)
    finally:
        os.close(handle)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count} bytes"
