"""Made-up damped systems, and what is asked of an inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from worker.operators import Damped, DenseOperator


def make_system(size: int, condition: float, seed: int = 0) -> Damped:
    """A singular second moment, damped to a condition of at most ``condition``; its bounds are 1 / condition and 1."""
    generator = Generator().manual_seed(seed)
    scale_D = torch.logspace(0, -1, size, dtype=torch.float64)
    x_ND = torch.randn(size // 2, size, generator=generator, dtype=torch.float64) * scale_D
    matrix_DD = x_ND.T @ x_ND
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    matrix_DD *= (1 - 1 / condition) / DenseOperator(matrix_DD).norm_bound()
    return Damped(DenseOperator(matrix_DD), 1 / condition)


def dense(system: Damped) -> Tensor:
    """``A``, ``[D, D]``."""
    return system.matmul(torch.eye(system.size, dtype=torch.float64))


def residual_of(a_DD: Tensor, x_DD: Tensor) -> Tensor:
    """``I - A X``."""
    return torch.eye(len(a_DD), dtype=a_DD.dtype) - a_DD @ x_DD


def worst_column(residual_DD: Tensor) -> float:
    return float(residual_DD.norm(dim=0).max())


def span(values: Sequence[float], form: str) -> str:
    """From the least to the greatest, or the one that all are."""
    low, high = (f"{value:{form}}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
