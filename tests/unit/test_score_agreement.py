"""Rank agreement against scipy's."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from worker.scores.agreement import median_spearman, spearman


@pytest.mark.parametrize("levels", [3, 1000])
def test_equals_scipys_with_ties_and_without(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    a_N, b_N = (torch.randint(0, levels, (50,), generator=generator).double() for _ in range(2))
    assert spearman(a_N, b_N) == pytest.approx(float(spearmanr(a_N, b_N).statistic), abs=1e-12)


def test_a_constant_vector_has_no_ranks() -> None:
    assert spearman(torch.ones(5), torch.arange(5)) is None


def test_the_median_leaves_out_rows_without_ranks() -> None:
    first_QN = torch.tensor([[1.0, 2, 3], [1, 2, 3], [5, 5, 5]])
    second_QN = torch.tensor([[1.0, 2, 3], [3, 2, 1], [1, 2, 3]])
    assert median_spearman(first_QN, second_QN) == 0
    assert median_spearman(first_QN[2:], second_QN[2:]) is None
