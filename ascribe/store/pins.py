"""Locks on entries: held shared by whoever uses one, taken alone by whoever removes it.

A lock belongs to the kernel (flock) and ends with the process that held it, however that ended. Entries come and go,
so a lock counts only while the locked file is still the one at its path.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"


@contextmanager
def pinned(folder: Path) -> Iterator[None]:
    """The entry is there, made if need be, and stays; used at the beginning and the end of the block."""
    handle = _pin(folder)
    try:
        os.utime(handle)
        yield
    finally:
        with suppress(OSError):
            os.utime(handle)
        os.close(handle)


@contextmanager
def alone(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether nobody else has the folder, which holds for the block; with ``wait``, once that is so.

    Raises:
        FileNotFoundError: no such folder.
    """
    handle = _open(folder)
    try:
        yield _locked_alone(handle, wait=wait) and _is_at(handle, folder / LOCK)
    finally:
        os.close(handle)


def in_use(folder: Path) -> bool:
    """Whether somebody has the entry pinned right now."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False  # from before there were locks
    try:
        return not _locked_alone(handle)
    finally:
        os.close(handle)


def _pin(folder: Path) -> int:
    """A shared lock on the entry; what dead writers left in it is gone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            handle = _open(folder)
        except FileNotFoundError:
            continue  # removed in between
        if _locked_alone(handle) and _is_at(handle, folder / LOCK):
            for temporary in folder.glob(".*"):
                if temporary.name != LOCK:
                    temporary.unlink(missing_ok=True)
        fcntl.flock(handle, fcntl.LOCK_SH)
        if _is_at(handle, folder / LOCK):
            return handle
        os.close(handle)


def _open(folder: Path) -> int:
    return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)


def _locked_alone(handle: int, *, wait: bool = False) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``: a lock on a removed entry protects nothing."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
