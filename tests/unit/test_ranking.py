"""Rankings: stable, and sorted once for all pages."""

from __future__ import annotations

import random
from array import array

import pytest

from ascribe.results.ranking import RankedOrder, rank
from service.results.ranking import Rankings

SCORES = array("f", [0.5, -2.0, 0.5, 2.0, -0.0, 0.0, -2.0, 1.0])


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("proponents", [3, 7, 0, 2, 4, 5, 1, 6]),
        ("opponents", [1, 6, 4, 5, 0, 2, 7, 3]),
        ("absolute", [1, 3, 6, 7, 0, 2, 4, 5]),
    ],
)
def test_equal_scores_stay_in_row_order(order: RankedOrder, expected: list[int]) -> None:
    assert list(rank(SCORES, order)) == expected


def test_a_long_vector_is_ranked_as_python_sorts_it() -> None:
    generator = random.Random(0)  # noqa: S311
    scores = array("f", [round(generator.gauss(0, 1), 2) for _ in range(20_000)])
    assert list(rank(scores, "opponents")) == sorted(range(len(scores)), key=scores.__getitem__)


def test_a_ranking_is_sorted_once_and_the_least_asked_for_goes() -> None:
    rankings = Rankings(keep=2)
    first = rankings.get(("a",), SCORES, "proponents")
    rankings.get(("b",), SCORES, "opponents")
    assert rankings.get(("a",), SCORES, "proponents") is first
    rankings.get(("c",), SCORES, "absolute")
    assert rankings.get(("a",), SCORES, "proponents") is first, "b was asked for longer ago"
    rankings.get(("d",), SCORES, "absolute")
    rankings.get(("e",), SCORES, "absolute")
    assert rankings.get(("a",), SCORES, "proponents") is not first
