"""How far several scorings of the same train rows agree, and where they do not. Plain Python: no numpy needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import nlargest, nsmallest
from itertools import combinations, groupby

from pydantic import BaseModel


class PairAgreement(BaseModel):
    """Of two scorings.

    ``spearman``: correlation of the ranks, from -1 to 1; None where one scoring gives every row the same score.
    ``proponents`` and ``opponents``: share of the ``top_k`` highest, and lowest, rows that both name.
    """

    first: int
    second: int
    spearman: float | None
    proponents: float
    opponents: float


class Dispute(BaseModel):
    """A row that is ranked differently: ``ranks`` by scoring, 1 for the highest score."""

    index: int
    ranks: list[float]


class Agreement(BaseModel):
    rows: int
    top_k: int
    pairs: list[PairAgreement]
    disputes: list[Dispute]


def agreement(scorings: Sequence[Sequence[float]], *, top_k: int, disputes: int) -> Agreement:
    """Compare ``scorings``, two or more, each a score a row; ``disputes`` rows with the widest gap between ranks."""
    ranks = [ranked(scores) for scores in scorings]
    rows = len(ranks[0])
    top_k = min(top_k, rows)
    highest = [set(nsmallest(top_k, range(rows), key=rank.__getitem__)) for rank in ranks]
    lowest = [set(nlargest(top_k, range(rows), key=rank.__getitem__)) for rank in ranks]
    pairs = [
        PairAgreement(
            first=i,
            second=j,
            spearman=correlation(ranks[i], ranks[j]),
            proponents=len(highest[i] & highest[j]) / top_k,
            opponents=len(lowest[i] & lowest[j]) / top_k,
        )
        for i, j in combinations(range(len(ranks)), 2)
    ]
    by_row = list(zip(*ranks, strict=True))
    widest = nlargest(disputes, range(rows), key=lambda row: max(by_row[row]) - min(by_row[row]))
    disputed = [Dispute(index=row, ranks=list(by_row[row])) for row in widest if len(set(by_row[row])) > 1]
    return Agreement(rows=rows, top_k=top_k, pairs=pairs, disputes=disputed)


def ranked(scores: Sequence[float]) -> list[float]:
    """Rank of each score, 1 for the highest; equal scores share the mean of their ranks."""
    ranks = [0.0] * len(scores)
    start = 0
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    for _, group in groupby(order, key=scores.__getitem__):
        rows = list(group)
        for row in rows:
            ranks[row] = start + (len(rows) + 1) / 2
        start += len(rows)
    return ranks


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's; of ranks it is Spearman's. None where one of the two is constant."""
    mean_a, mean_b = math.fsum(first) / len(first), math.fsum(second) / len(second)
    a, b = [value - mean_a for value in first], [value - mean_b for value in second]
    scale = math.hypot(*a) * math.hypot(*b)
    return max(-1.0, min(1.0, math.fsum(x * y for x, y in zip(a, b, strict=True)) / scale)) if scale else None
