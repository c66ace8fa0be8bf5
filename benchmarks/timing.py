"""Seconds of work on a device, of the work alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def device_at_hand() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What ``work`` returns, and its seconds: on a card from an idle card to an idle card, else of the processor.

    The processor's own time is what one thread takes whatever else runs on a shared machine.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        result = work()
        torch.cuda.synchronize(device)
        return result, time.perf_counter() - started
    started = time.process_time()
    result = work()
    return result, time.process_time() - started
