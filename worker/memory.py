"""Memory of this process: its peak in one job of many, how much there is, and how it shows that there is no more."""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GROUPS = Path("/proc/self/cgroup")
_REFUSALS = ("can't allocate memory", "not enough memory", "could not create a primitive", "could not create a memory")
"""In a RuntimeError: of PyTorch's allocator for the CPU, and of oneDNN where it finds no room for a program."""


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


def ran_out(error: BaseException) -> bool:
    """Whether the error says that memory could not be had, on whatever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(refusal in str(error) for refusal in _REFUSALS)


def there_bytes(groups: Path = _GROUPS, root: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory of the machine, or of the smallest control group around this process where that has less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            folder = root / controllers / path.strip("/")
            # In a container the path is often that outside of it, and the group itself stands at the root.
            for group in (folder, *folder.parents):
                limit = group / name
                if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
                    found.append(int(text))
                if group == root / controllers:
                    break
    return min(found)
