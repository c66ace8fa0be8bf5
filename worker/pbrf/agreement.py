"""How well scores agree with the responses they stand for: Pearson's and Spearman's correlations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one method with the responses. A correlation with something constant does not exist and is NaN.

    Attributes:
        pearson_Q: over the chosen train rows, for every validation row, float64.
        spearman_Q: the same of ranks; equal values share the mean of their ranks.
        pearson: over all pairs of a train and a validation row.
        spearman: the same of ranks.
    """

    pearson_Q: Tensor
    spearman_Q: Tensor
    pearson: float
    spearman: float


def agreement(differences_ZQ: Tensor, scores: Mapping[str, Tensor]) -> dict[str, Agreement]:
    """Each of ``scores``, ``[Z, Q]`` by name, beside the responses to the same train rows.

    Raises:
        ValueError: fewer than three train rows, or scores of another shape.
    """
    if differences_ZQ.ndim != 2 or len(differences_ZQ) < 3:
        raise ValueError("a correlation needs at least three train rows")
    for name, score_ZQ in scores.items():
        if score_ZQ.shape != differences_ZQ.shape:
            raise ValueError(f"the scores of {name} are not of the responses' shape {tuple(differences_ZQ.shape)}")
    return {name: _agree(differences_ZQ.double(), score_ZQ.double()) for name, score_ZQ in scores.items()}


def mean_and_minimum(value_Q: Tensor) -> tuple[float, float]:
    """Of those that exist; NaN where none does."""
    known = value_Q[~value_Q.isnan()]
    return (float(known.mean()), float(known.min())) if len(known) else (math.nan, math.nan)


def _agree(first_ZQ: Tensor, second_ZQ: Tensor) -> Agreement:
    def over_all(value_ZQ: Tensor) -> Tensor:
        return value_ZQ.reshape(-1, 1)

    return Agreement(
        _correlation(first_ZQ, second_ZQ),
        _correlation(_ranks(first_ZQ), _ranks(second_ZQ)),
        float(_correlation(over_all(first_ZQ), over_all(second_ZQ))),
        float(_correlation(_ranks(over_all(first_ZQ)), _ranks(over_all(second_ZQ)))),
    )


def _correlation(first_ZQ: Tensor, second_ZQ: Tensor) -> Tensor:
    """Pearson's, column by column, ``[Q]``."""
    a_ZQ, b_ZQ = first_ZQ - first_ZQ.mean(0), second_ZQ - second_ZQ.mean(0)
    constant_Q = (first_ZQ == first_ZQ[0]).all(0) | (second_ZQ == second_ZQ[0]).all(0)
    correlation_Q: Tensor = (a_ZQ * b_ZQ).sum(0) / (a_ZQ.norm(dim=0) * b_ZQ.norm(dim=0))
    return correlation_Q.clamp(-1, 1).masked_fill(constant_Q, math.nan)


def _ranks(value_ZQ: Tensor) -> Tensor:
    """Rank of every entry in its column, from 1; equal ones share the mean of their ranks."""
    columns = []
    for value_Z in value_ZQ.T:
        _, group_Z, size_G = torch.unique(value_Z, return_inverse=True, return_counts=True)
        last_G = size_G.cumsum(0).double()
        columns.append((last_G - (size_G - 1) / 2)[group_Z])
    return torch.stack(columns, dim=1)
