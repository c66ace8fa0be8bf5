"""A host whose clock is wrong: importing this module shifts the wall clock of its process.

``FAULT_CLOCK_SECONDS`` says by how much. What asks through ``time`` is told the wrong time: our code, Celery, kombu,
redis-py. The monotonic clock goes on as it was, as it does on a real host that is set wrong.
"""

from __future__ import annotations

import os
import time

VARIABLE = "FAULT_CLOCK_SECONDS"


def shift(seconds: float) -> None:
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + round(seconds * 1e9)


if VARIABLE in os.environ:
    shift(float(os.environ[VARIABLE]))
