"""The linear datamodeling score (TRAK, arXiv 2303.14186, section 2.1).

For one validation row: the rank correlation, over random subsets of the train rows, of the sum of a method's scores
over the subset with what a model trained on that subset alone makes of the row. Ours is of the loss with its sign
turned, since a positive score says that the train row lowers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Lds:
    """Mean over the validation rows, and its bootstrap interval over subsets and validation rows together."""

    mean: float
    low: float
    high: float


def draw_subsets(rows: int, count: int, seed: int = 0) -> list[list[int]]:
    """``count`` random halves of ``rows`` train rows, each in ascending order."""
    random = Random(f"subsets {seed}")  # noqa: S311 - reproducible, not secret
    return [sorted(random.sample(range(rows), rows // 2)) for _ in range(count)]


def membership(subsets: list[list[int]], rows: int) -> Array:
    """``[M, N]``: 1 where the subset has the row."""
    inside_MN = np.zeros((len(subsets), rows))
    for place, subset in enumerate(subsets):
        inside_MN[place, subset] = 1.0
    return inside_MN


def rank_correlations(a_QM: Array, b_QM: Array) -> Array:
    """Spearman by row, ``[Q]``; ties share their mean rank, and a row of equal values has correlation 0."""
    a_QM, b_QM = (_standardised(rankdata(each, axis=1)) for each in (a_QM, b_QM))
    correlation_Q: Array = (a_QM * b_QM).sum(axis=1)
    return correlation_Q


def lds(score_QN: Array, inside_MN: Array, loss_MQ: Array, *, resamples: int = RESAMPLES) -> Lds:
    """Of scores that are positive for proponents, beside the losses after retraining on each subset."""
    predicted_QM, measured_QM = score_QN @ inside_MN.T, -loss_MQ.T
    generator = np.random.default_rng(0)
    queries, subsets = predicted_QM.shape
    means = []
    for _ in range(resamples):
        q = generator.integers(queries, size=queries)
        m = generator.integers(subsets, size=subsets)
        means.append(rank_correlations(predicted_QM[q][:, m], measured_QM[q][:, m]).mean())
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Lds(float(rank_correlations(predicted_QM, measured_QM).mean()), float(low), float(high))


def _standardised(rank_QM: Array) -> Array:
    centred_QM = rank_QM - rank_QM.mean(axis=1, keepdims=True)
    norm_Q1 = np.linalg.norm(centred_QM, axis=1, keepdims=True)
    result: Array = np.divide(centred_QM, norm_Q1, out=np.zeros_like(centred_QM), where=norm_Q1 > 0)
    return result
