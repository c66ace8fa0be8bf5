"""Processes that stand still: alive, holding their connections and locks, and doing nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def frozen(group: int) -> Iterator[None]:
    """SIGSTOP to every process of the group; SIGCONT at the end of the block, if it is still there."""
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)
