"""Which rows are chosen: order, shares of labels, duplicates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascribe.choosing import Quota, choose, row_count, shares


@pytest.mark.parametrize(
    ("rows", "fraction", "expected"), [(1000, 0.2, 200), (3, 0.5, 2), (3, 0.01, 1), (7, 1.0, 7), (5, 0.5, 3)]
)
def test_a_fraction_is_rounded_and_never_nothing(rows: int, fraction: float, expected: int) -> None:
    assert row_count(rows, fraction) == expected


def test_the_best_first_and_ties_in_row_order() -> None:
    scores = [1.0, 3.0, 3.0, -2.0, 0.0]
    assert choose(scores, 3).places == (1, 2, 0)
    assert choose(scores, 2, direction="opponents").places == (3, 4)
    assert choose(scores, 9).places == (1, 2, 0, 4, 3)


def test_of_rows_that_say_the_same_the_best_is_chosen() -> None:
    found = choose([1.0, 3.0, 2.0, 0.5], 3, contents=["a", "b", "b", "c"])
    assert (found.places, found.duplicates) == ((1, 0, 3), 1)
    worst = choose([1.0, 3.0, 2.0, 0.5], 1, contents=["a", "b", "b", "a"], direction="opponents")
    assert (worst.places, worst.duplicates) == ((3,), 2)


def test_each_label_has_its_share_of_its_own_best() -> None:
    labels = ["x"] * 6 + ["y"] * 3
    scores = [9.0, 8, 7, 6, 5, 4, 3, 2, 1]
    assert choose(scores, 6, labels=labels, quota="proportional").places == (0, 1, 2, 3, 6, 7)
    assert choose(scores, 4, labels=labels, quota="balanced").places == (0, 1, 6, 7)
    # y has three rows: what it cannot fill goes to the best of the others.
    assert choose(scores, 8, labels=labels, quota="balanced").places == (0, 1, 2, 3, 4, 6, 7, 8)


@pytest.mark.parametrize(
    ("sizes", "count", "quota", "expected"),
    [
        ({"a": 50, "b": 30, "c": 20}, 10, "proportional", {"a": 5, "b": 3, "c": 2}),
        ({"a": 1, "b": 1, "c": 1}, 2, "balanced", {"a": 1, "b": 1, "c": 0}),
        ({"a": 10, "b": 10, "c": 10}, 10, "balanced", {"a": 4, "b": 3, "c": 3}),
        ({"a": 2, "b": 98}, 10, "proportional", {"a": 0, "b": 10}),
    ],
)
def test_shares_by_largest_remainder(sizes: dict[str, int], count: int, quota: Quota, expected: dict[str, int]) -> None:
    assert quota != "none"
    assert shares(sizes, count, quota) == expected


@given(
    rows=st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("abc"), st.integers(0, 8)), min_size=1, max_size=40),
    count=st.integers(1, 50),
    quota=st.sampled_from(["none", "proportional", "balanced"]),
)
def test_as_many_as_asked_for_or_as_there_are(rows: list[tuple[float, str, int]], count: int, quota: Quota) -> None:
    scores, labels, contents = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    found = choose(scores, count, labels=labels, quota=quota, contents=contents)
    distinct = len(set(contents))
    assert len(found.places) == min(count, distinct)
    assert found.duplicates == len(rows) - distinct
    assert len({contents[place] for place in found.places}) == len(found.places)
    chosen = [scores[place] for place in found.places]
    assert chosen == sorted(chosen, reverse=True)
