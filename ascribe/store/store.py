"""Entries on disk: pinned while in use, the least recently used ones removed when room is needed.

    <root>/<kind>/<key>/          one entry: gradients, curvature or solutions under a content key
    <root>/<kind>/<key>/.lock     held shared by whoever uses the entry; its time of change is the last use
    <root>/<kind>/.removed-*      on its way out

Every process on the folder goes by the same locks, so the workers of a machine, those of other machines on a file
system that carries flock, and the command line can share a cache.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ascribe.errors import NoRoom
from ascribe.store.files import Files, storage_errors
from ascribe.store.pins import LOCK, alone, in_use, pinned

if TYPE_CHECKING:
    from ascribe.store.remote import Remote

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
        remote: the store of which this folder holds copies; removing an entry here leaves it there.
    """

    def __init__(
        self, root: Path, *, max_bytes: int | None, reserve_bytes: int = 0, remote: Remote | None = None
    ) -> None:
        self.root = root
        self.shared = remote is not None
        self.files = Files(root, remote, self.make_room)
        self._opened: set[Path] | None = None
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes

    @contextmanager
    def open(self, kind: str, key: str) -> Iterator[Path]:
        """The entry's folder, made if need be. Nobody removes it inside the block, whatever happens to its files.

        Raises:
            StorageFailed: the folder cannot be made.
        """
        folder = self._folder(kind, key)
        with ExitStack() as pins:
            with storage_errors():
                pins.enter_context(pinned(folder))
            if self._opened is not None:
                self._opened.add(folder)
            yield folder

    @contextmanager
    def noting(self) -> Iterator[Callable[[], int]]:
        """Gives what tells how many bytes the entries hold that were opened inside the block."""
        opened = self._opened = set()
        try:
            yield lambda: sum(entry.bytes for folder in opened if (entry := _look(folder)) is not None)
        finally:
            self._opened = None

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
                with alone(folder) as free:
                    if not free:
                        return False
                    folder.rename(leaving)
            except (FileNotFoundError, NotADirectoryError):
                return False
            shutil.rmtree(leaving, ignore_errors=True)  # whoever makes room next finishes the job
        return True

    def make_room(self, bytes_needed: int) -> None:
        """Remove the least recently used entries that nobody uses until ``bytes_needed`` more fit.

        Nothing is removed when that would not be enough. One process at a time.

        Raises:
            NoRoom: they cannot fit; the message has the figures.
            StorageFailed: the folder cannot be changed.
        """
        with storage_errors():
            self.root.mkdir(parents=True, exist_ok=True)
        with storage_errors(), alone(self.root, wait=True):
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
        over_disk = bytes_needed + self._reserve_bytes - shutil.disk_usage(self.root).free
        over_limit = 0 if self._max_bytes is None else held + bytes_needed - self._max_bytes
        return max(over_disk, over_limit)

    def _no_room(self, bytes_needed: int, pinned_bytes: int) -> NoRoom:
        limit = "no limit" if self._max_bytes is None else f"a limit of {_size(self._max_bytes)}"
        free = _size(shutil.disk_usage(self.root).free)
        return NoRoom(
            f"the cache needs {_size(bytes_needed)} more and cannot make room: {limit}, {_size(pinned_bytes)} in use "
            f"by running jobs, {free} free on the disk of which {_size(self._reserve_bytes)} stay free. Use fewer rows "
            "or parameters, wait for running jobs, free disk space, or raise ASCRIBE_CACHE_MAX_BYTES"
        )

    def _folder(self, kind: str, key: str) -> Path:
        assert PLAIN.fullmatch(kind), "a kind is a plain name"
        assert PLAIN.fullmatch(key), "a key is a plain name"
        return self.root / kind / key


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
        return Entry(folder.parent.name, folder.name, size, datetime.fromtimestamp(used, UTC), in_use(folder))
    except FileNotFoundError:
        return None


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count} bytes"
