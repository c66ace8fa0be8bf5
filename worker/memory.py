"""Peak memory of one job in a process that lives for many."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Start counting anew where the system can (Linux) and lets us; elsewhere the peak is the process's own."""
    with suppress(OSError):
        _CLEAR.write_text("5")


def peak_bytes() -> int:
    """Largest resident size since :func:`reset_peak`, mapped gradient files included."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back() -> None:
    """Hand what was freed back to the system where the C library can (glibc), which by itself keeps the holes.

    Batches of ever other shapes leave ever other holes; a pass over many rows starts each shard without them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
