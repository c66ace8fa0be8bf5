"""Rank agreement against closed forms, pandas as the oracle."""

from __future__ import annotations

import random

import pandas
import pytest

from ascribe.client.agreement import agreement, correlation, ranked


def test_equal_scores_share_their_rank() -> None:
    assert ranked([3.0, 1.0, 3.0, -2.0]) == [1.5, 3.0, 1.5, 4.0]


def test_spearman_is_that_of_pandas_ties_and_all() -> None:
    dice = random.Random(0)  # noqa: S311
    for _ in range(20):
        first = [dice.choice([dice.gauss(0, 1), 0.0, 1.0]) for _ in range(50)]
        second = [value + dice.gauss(0, 1) for value in first]
        ours = agreement([first, second], top_k=5, disputes=0).pairs[0].spearman
        theirs = pandas.Series(first).rank().corr(pandas.Series(second).rank())
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_the_same_order_agrees_fully_and_the_reverse_not_at_all() -> None:
    up = [float(value) for value in range(100)]
    found = agreement([up, [10 * value for value in up], up[::-1]], top_k=10, disputes=3)
    same, reverse, _ = found.pairs
    assert [same.spearman, same.proponents, same.opponents] == pytest.approx([1, 1, 1])
    assert [reverse.spearman, reverse.proponents, reverse.opponents] == pytest.approx([-1, 0, 0])
    assert [dispute.index for dispute in found.disputes[:2]] == [0, 99]
    assert found.disputes[0].ranks == [100, 100, 1]


def test_constant_scores_have_no_rank_correlation() -> None:
    found = agreement([[1.0, 1.0], [1.0, 2.0]], top_k=10, disputes=10)
    assert found.pairs[0].spearman is None
    assert found.top_k == 2
    assert correlation([1.0, 2.0], [5.0, 5.0]) is None


def test_rows_ranked_alike_are_no_disputes() -> None:
    assert agreement([[1.0, 2.0, 3.0], [1.0, 2.0, 9.0]], top_k=1, disputes=5).disputes == []
