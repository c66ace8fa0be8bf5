"""Which rows to train on: the best by score, by share of each label, exact duplicates once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Quota = Literal["none", "proportional", "balanced"]
Direction = Literal["proponents", "opponents"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """``places`` are the chosen rows' indices, the best first; ``duplicates`` how many rows were passed over."""

    places: tuple[int, ...]
    duplicates: int


def row_count(rows: int, fraction: float) -> int:
    """That fraction of the rows, rounded to the nearest, one at least."""
    return max(1, math.floor(fraction * rows + 0.5))


def choose(
    scores: Sequence[float],
    count: int,
    *,
    direction: Direction = "proponents",
    labels: Sequence[str] | None = None,
    quota: Quota = "none",
    contents: Sequence[Hashable] | None = None,
) -> Chosen:
    """Up to ``count`` rows, fewer where there are no more.

    Args:
        scores: of every row; ties go in row order.
        direction: the highest scores first, or the lowest.
        labels: of every row, for a ``quota``: each label's rows compete among themselves for its share of ``count``.
            'proportional': as all rows are spread over the labels; 'balanced': the same for each. What a label is too
            small to fill goes to the best of the others.
        contents: of every row, where of equal ones only the best is to be chosen.
    """
    count = min(count, len(scores))
    sign = -1 if direction == "proponents" else 1
    order = sorted(range(len(scores)), key=lambda place: sign * scores[place])
    distinct = order if contents is None else _first_of_each(order, contents)
    if quota == "none" or labels is None:
        return Chosen(tuple(distinct[:count]), len(order) - len(distinct))
    left = shares(Counter(labels[place] for place in distinct), count, quota)
    within: list[int] = []
    beyond: list[int] = []
    for place in distinct:
        (within if left[labels[place]] > 0 else beyond).append(place)
        left[labels[place]] -= 1
    taken = {*within, *beyond[: max(0, count - len(within))]}
    return Chosen(tuple(place for place in distinct if place in taken), len(order) - len(distinct))


def shares(sizes: Mapping[str, int], count: int, quota: Literal["proportional", "balanced"]) -> dict[str, int]:
    """How many of ``count`` rows each label has a right to, no more than it has rows, by largest remainder."""
    total = sum(sizes.values())
    exact = {
        label: min(float(size), count * (size / total if quota == "proportional" else 1 / len(sizes)))
        for label, size in sizes.items()
    }
    found = {label: math.floor(share) for label, share in exact.items()}
    rest = min(count, round(sum(exact.values()))) - sum(found.values())
    # Of equal remainders the larger label's first, and of equal labels that of the first name.
    for label in sorted(exact, key=lambda label: (found[label] - exact[label], -sizes[label], label))[:rest]:
        found[label] += 1
    return found


def _first_of_each(order: Sequence[int], contents: Sequence[Hashable]) -> list[int]:
    seen: set[Hashable] = set()
    kept = []
    for place in order:
        if contents[place] not in seen:
            seen.add(contents[place])
            kept.append(place)
    return kept
