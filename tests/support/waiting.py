"""Waiting for something to come true, for so long and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_EVERY_SECONDS = 0.02


def await_that(condition: Callable[[], object], what: str, *, within_seconds: float = 60.0) -> float:
    """Until ``condition()`` is true; the seconds it took. Raises TimeoutError with ``what`` was waited for."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_seconds:
            raise TimeoutError(f"not in {within_seconds:g} s: {what}")
        time.sleep(LOOK_EVERY_SECONDS)
    return time.monotonic() - began
