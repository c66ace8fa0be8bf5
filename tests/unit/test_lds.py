"""The linear datamodeling score against scores that are right by construction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.peers.lds import draw_subsets, lds, membership, rank_correlations


def test_rank_correlations_are_those_of_scipy_ties_and_all() -> None:
    generator = np.random.default_rng(0)
    a_QM, b_QM = generator.integers(5, size=(2, 6, 30)).astype(float)
    expected = [spearmanr(a_M, b_M).statistic for a_M, b_M in zip(a_QM, b_QM, strict=True)]
    np.testing.assert_allclose(rank_correlations(a_QM, b_QM), expected)
    assert rank_correlations(np.ones((1, 4)), np.arange(4.0)[None]).tolist() == [0.0]


def test_scores_that_add_up_to_the_losses_have_a_score_of_one() -> None:
    generator = np.random.default_rng(1)
    subsets = draw_subsets(40, 60)
    assert all(len(set(subset)) == 20 for subset in subsets)
    inside_MN = membership(subsets, 40)
    score_QN = generator.normal(size=(5, 40))
    loss_MQ = 3.0 - inside_MN @ score_QN.T
    exact = lds(score_QN, inside_MN, loss_MQ, resamples=50)
    assert (exact.mean, exact.low, exact.high) == pytest.approx((1, 1, 1))
    assert lds(-score_QN, inside_MN, loss_MQ, resamples=50).mean == pytest.approx(-1)
    chance = lds(generator.normal(size=(5, 40)), inside_MN, loss_MQ, resamples=300)
    assert chance.low < 0 < chance.high
