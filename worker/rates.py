"""How fast this process computes: what the cost model of :mod:`ascribe.planning` divides by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

from ascribe.planning.rates import CPU, Rates

_SIDE = 512
_COPIED = 2**22
_REPEATS = 8


@cache
def measure() -> Rates:
    """Products and copies with the threads set now, once a process; takes a tenth of a second.

    The rate of the model is not measured: that needs a model.
    """
    return replace(
        CPU,
        float64_flops=2 * _SIDE**3 / _best(_product(torch.float64)),
        float32_flops=2 * _SIDE**3 / _best(_product(torch.float32)),
        bytes_per_second=12 * _COPIED / _best(_conversion()),
    )


def _product(dtype: torch.dtype) -> Callable[[], object]:
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    out = torch.empty_like(matrix)
    return lambda: torch.mm(matrix, matrix, out=out)


def _conversion() -> Callable[[], object]:
    narrow, wide = torch.ones(_COPIED, dtype=torch.float32), torch.ones(_COPIED, dtype=torch.float64)
    return lambda: wide.copy_(narrow)


def _best(work: Callable[[], object]) -> float:
    """Seconds that this thread, which takes its part in every product, spent on the fastest of a few runs.

    Seconds by the clock would count what else the machine does.
    """
    work()
    seconds = []
    for _ in range(_REPEATS):
        started = time.thread_time()
        work()
        seconds.append(time.thread_time() - started)
    return min(seconds)
