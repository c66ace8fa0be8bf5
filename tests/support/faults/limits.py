"""Running processes that meet a limit: a disk that is full, or memory that is."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def files_end_at(size_bytes: int, pids: Iterable[int]) -> Iterator[None]:
    """No file can be written beyond ``size_bytes``: EFBIG, which to a writer is a full disk. Needs no mount."""
    with _limited(resource.RLIMIT_FSIZE, size_bytes, list(pids)):
        yield


@contextmanager
def memory_ends_at(size_bytes: int, pids: Iterable[int]) -> Iterator[None]:
    """No more address space than this: MemoryError, where a machine without a limit would kill."""
    with _limited(resource.RLIMIT_AS, size_bytes, list(pids)):
        yield


@contextmanager
def _limited(kind: int, size: int, pids: list[int]) -> Iterator[None]:
    """Processes that these start inside the block keep the limit: a soft one, as the hard one cannot be taken back."""
    before = {pid: resource.prlimit(pid, kind) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, kind, (size, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, kind, limits)
