"""The store that all machines share: files under names, in a folder or in an object store.

A name appears with all its bytes or not at all. In a folder (a local disk, NFS) a file is copied to ``.incoming``,
synced and renamed; in an object store a PUT, or the end of a multipart upload, is the one moment at which it appears.

Threads may share a Remote: fsspec runs every request on one event loop in a thread of its own, which keeps one client a
process. A process that has used an object store must not fork and go on: what the child tidies away stalls the parent's
next request until its timeout (seen with s3fs 2026.9). Ours are spawned.
"""

from __future__ import annotations

import io
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from ascribe.settings import Settings
from ascribe.store.ranges import RangeReader
from ascribe.store.trouble import ShortRead, insist

SLOWEST_BYTES_PER_SECOND = 1 << 20
"""A transfer that is slower on average counts as hung."""
STALE_SECONDS = 86400.0
PART_BYTES = 16 << 20
INCOMING = ".incoming"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file as it was listed; ``modified_at`` in UTC."""

    name: str
    bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class Remote:
    """Files by name below ``url``; names are relative paths with ``/``.

    Every operation is tried a few times and ends in bounded time: a folder's operations as the operating
    system bounds them, an object store's after ``timeout_seconds`` of silence or at a crawl.

    Args:
        url: ``file:///folder``, ``s3://bucket/prefix`` or another object store that fsspec knows.
        options: what fsspec's file system takes, such as ``endpoint_url``, ``key`` and ``secret``.
    """

    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 30

    def put(self, local: Path, name: str) -> None:
        """Keep the file under ``name``, over what was there.

        Raises:
            StorageFailed: ``name`` then has the old file, the new one or none, but no part of one.
        """
        place = self._into_folder if self._in_folder else self._into_objects
        insist(lambda: place(local, self._path(name)))

    def get(self, name: str, local: Path) -> bool:
        """Write what is kept under ``name`` to ``local``; False: there is nothing.

        Raises:
            StorageFailed: ``local`` may then hold a part of the bytes.
        """
        size = self.size(name)
        if size is None:
            return False

        def fetch() -> None:
            self._fs().get_file(self._path(name), str(local), **self._patience(size))
            _check_size(local.stat().st_size, size)

        insist(fetch)
        return True

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None: there is nothing under this name. Raises StorageFailed."""
        in_one_request = {"max_concurrency": 1} if self._is_s3 else {}
        return self._unless_missing(
            lambda: bytes(self._fs().cat_file(self._path(name), **in_one_request, **self._patience(0)))
        )

    def open(self, name: str) -> IO[bytes]:
        """The file for random access, buffered; each miss is one request for a range of bytes.

        Raises:
            StorageFailed: here and at every read, also where there is nothing under this name.
        """
        size = insist(lambda: self._size(name))

        def fetch(start: int, stop: int) -> bytes:
            patience = self._patience(stop - start)
            return insist(
                lambda: _whole(self._fs().cat_file(self._path(name), start=start, end=stop, **patience), stop - start)
            )

        return io.BufferedReader(RangeReader(fetch, size), buffer_size=1 << 20)

    def size(self, name: str) -> int | None:
        """Bytes of the file; None: there is nothing under this name. Raises StorageFailed."""
        return self._unless_missing(lambda: self._size(name))

    def delete(self, name: str) -> None:
        """There is nothing under ``name`` afterwards. Raises StorageFailed."""
        self._unless_missing(lambda: self._fs().rm_file(self._path(name), **self._patience(0)))

    def names(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """The files below the folder ``prefix`` (all of them: ``""``) and when they were written, in UTC.

        Raises:
            StorageFailed: at the first one.
        """
        return ((file.name, file.modified_at) for file in self.files(prefix))

    def files(self, prefix: str) -> Iterator[RemoteFile]:
        """:meth:`names`, with sizes."""
        path = self._path(prefix).rstrip("/")
        root = self._path("")
        found = insist(lambda: self._fs().find(path, detail=True, **self._patience(1 << 30)))
        for full, info in found.items():
            name = full.removeprefix(root)
            if info["type"] == "file" and not name.startswith(f"{INCOMING}/"):
                yield RemoteFile(name, int(info["size"]), _modified(info))

    # -- placing ------------------------------------------------------------------------------------------------
    def _into_objects(self, local: Path, path: str) -> None:
        size = local.stat().st_size
        fs = self._fs()
        chunks = {"chunksize": PART_BYTES} if self._is_s3 else {}
        fs.put_file(str(local), path, **chunks, **self._patience(size))
        if fs.info(path, **self._patience(0))["size"] != size:
            fs.rm_file(path, **self._patience(0))
            raise ShortRead

    def _into_folder(self, local: Path, path: str) -> None:
        incoming = Path(self._path(INCOMING))
        incoming.mkdir(parents=True, exist_ok=True)
        _sweep(incoming)
        temporary = incoming / secrets.token_hex(8)
        try:
            self._fs().put_file(str(local), str(temporary))
            _check_size(temporary.stat().st_size, local.stat().st_size)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    # -- asking -------------------------------------------------------------------------------------------------
    @property
    def _protocol(self) -> str:
        return self.url.partition("://")[0]

    @property
    def _is_s3(self) -> bool:
        return self._protocol in ("s3", "s3a")

    @property
    def _in_folder(self) -> bool:
        return bool(getattr(_backend(self._protocol), "local_file", False))

    def _fs(self) -> Any:
        if not self._is_s3:
            return _backend(self._protocol)(**self.options)
        fs = _backend(self._protocol)(**{**self._s3_options(), **self.options})
        fs.retries = 1  # ours and botocore's are enough: they multiply
        return fs

    def _s3_options(self) -> dict[str, Any]:
        config = {
            "connect_timeout": min(5.0, self.timeout_seconds),
            "read_timeout": self.timeout_seconds,
            "retries": {"mode": "standard", "total_max_attempts": 2},
        }
        return {
            "use_listings_cache": False,
            "default_block_size": PART_BYTES,
            "max_concurrency": 4,  # parts in memory at once
            "config_kwargs": config,
        }

    def _patience(self, size: int) -> dict[str, float]:
        """fsspec's time limit for one attempt that moves ``size`` bytes."""
        if not _backend(self._protocol).async_impl:  # a folder: only the operating system can give up
            return {}
        return {"timeout": 3 * self.timeout_seconds + size / SLOWEST_BYTES_PER_SECOND}

    def _path(self, name: str) -> str:
        root = _backend(self._protocol)._strip_protocol(self.url)
        return f"{root}/{name}"

    def _size(self, name: str) -> int:
        info = self._fs().info(self._path(name), **self._patience(0))
        if info["type"] != "file":
            raise FileNotFoundError(name)
        return int(info["size"])

    def _unless_missing(self, work: Callable[[], _T]) -> _T | None:
        def attempt() -> _T | None:
            with suppress(FileNotFoundError):
                return work()
            return None

        return insist(attempt)


def open_remote(settings: Settings) -> Remote | None:
    """The store that the settings name, None without one; what is there is the tenant's."""
    if not settings.store_url:
        return None
    url = f"{settings.store_url.rstrip('/')}/{settings.tenant}"
    return Remote(url, settings.store_options.get_secret_value(), settings.store_timeout_seconds)


@cache
def _backend(protocol: str) -> Any:
    """fsspec's class for it, loaded where there is such a store and at the first use."""
    from fsspec import get_filesystem_class

    return get_filesystem_class(protocol)


def _check_size(found: int, wanted: int) -> None:
    if found != wanted:
        raise ShortRead


def _whole(data: bytes, wanted: int) -> bytes:
    _check_size(len(data), wanted)
    return data


def _modified(info: Mapping[str, Any]) -> datetime:
    found = next(info[name] for name in ("mtime", "LastModified", "last_modified", "updated") if info.get(name))
    return datetime.fromtimestamp(found, UTC) if isinstance(found, float) else found.astimezone(UTC)


def _sweep(incoming: Path) -> None:
    """Remove what was being copied when its process was killed."""
    for path in incoming.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
