"""Peak memory of one job in a process that lives for many."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Start counting anew where the system can (Linux); elsewhere the peak is the process's own."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_bytes() -> int:
    """Largest resident size since :func:`reset_peak`, mapped gradient files included."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
