"""Rank agreement of score vectors over the same train rows."""

from __future__ import annotations

import torch
from torch import Tensor


def spearman(first_N: Tensor, second_N: Tensor) -> float | None:
    """Correlation of the ranks, -1 to 1, ties sharing the mean of theirs; None where a vector is constant."""
    a_N, b_N = _centred_ranks(first_N), _centred_ranks(second_N)
    scale = float(a_N.norm() * b_N.norm())
    return max(-1.0, min(1.0, float(a_N @ b_N) / scale)) if scale else None


def median_spearman(first_QN: Tensor, second_QN: Tensor) -> float | None:
    """The median over rows ``q`` of their agreement; None where no row has one."""
    values = [spearman(a_N, b_N) for a_N, b_N in zip(first_QN, second_QN, strict=True)]
    known = sorted(value for value in values if value is not None)
    return float(torch.tensor(known, dtype=torch.float64).quantile(0.5)) if known else None


def _centred_ranks(score_N: Tensor) -> Tensor:
    _, place_N, count_M = torch.unique(score_N, return_inverse=True, return_counts=True)
    last_M = count_M.cumsum(0).double()
    mean_M: Tensor = last_M - (count_M - 1) / 2
    return mean_M[place_N] - (len(score_N) + 1) / 2
