"""How noisy a sampled product is: the batch-size condition of a stochastic solver, measured instead of assumed."""

from __future__ import annotations

import math

import torch
from torch import Generator

from worker.operators import SampledOperator


def batch_variance(operator: SampledOperator, generator: Generator, batch_size: int, pairs: int) -> tuple[float, float]:
    """``Tr(E[C_B^2] - C^2)`` for drawn batches, and its standard error, from ``pairs`` pairs of independent batches.

    ``(||C_1 v||^2 + ||C_2 v||^2) / 2 - v^T C_1 C_2 v = ||C_1 v - C_2 v||^2 / 2`` has that mean over batches and
    Gaussian ``v`` (Klochkov & Liu 2024, arXiv:2409.17357). It falls like ``1 / batch_size``, and the draws
    of a :class:`SampledOperator` keep it below ``(tr C)^2 / batch_size``.
    """
    gaps = []
    for _ in range(pairs):
        probe_P1 = torch.randn(operator.size, 1, generator=generator, dtype=torch.float64)
        first, second = (operator.matmul_sampled(probe_P1, operator.draw(batch_size, generator)) for _ in range(2))
        gaps.append((first - second).square().sum() / 2)
    gap_K = torch.stack(gaps)
    return float(gap_K.mean()), float(gap_K.std()) / math.sqrt(pairs)
