"""Job ids: uuid7, so that the order of ids is the order of creation."""

from __future__ import annotations

import secrets
import threading
import time

_lock = threading.Lock()
_last = 0


def new_job_id() -> str:
    """``job_`` and a uuid7 in hex (RFC 9562, method 3): each is greater than those before it in this process."""
    global _last
    with _lock:
        # 48 bits of milliseconds, 12 bits of their fraction; one more than the last where the clock did not move.
        _last = max(_last + 1, (time.time_ns() << 12) // 1_000_000)
        stamp = _last
    milliseconds, fraction = stamp >> 12, stamp & 0xFFF
    return f"job_{milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(62):032x}"
