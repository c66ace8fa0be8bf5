"""The mean score at a glance: extremes, histogram, by label. Made once by the worker, read by dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ascribe.result import (
    Histogram,
    LabelSummary,
    RowInfo,
    ScoredRow,
    Summary,
    TokenScores,
    token_vector,
    validation_vector,
)

TOP_ROWS = 50
BINS = 40
EXAMPLES = 3


def summarize(score_N: Tensor, rows: list[RowInfo]) -> Summary:
    """Of the mean influence scores ``[N]`` of ``rows``."""
    order = torch.argsort(score_N, stable=True).tolist()
    return Summary(
        rows=len(rows),
        minimum=float(score_N.min()),
        median=float(score_N.median()),
        maximum=float(score_N.max()),
        share_negative=float((score_N < 0).double().mean()),
        histogram=_histogram(score_N),
        by_label=tuple(
            _label(label, score_N, rows) for label in sorted({row.label for row in rows if row.label is not None})
        ),
        proponents=_scored(order[::-1][:TOP_ROWS], score_N, rows),
        opponents=_scored(order[:TOP_ROWS], score_N, rows),
    )


def token_examples(
    vectors: Mapping[str, Tensor], rows: list[RowInfo], validation_ids: Sequence[str], tokens: Sequence[Sequence[str]]
) -> tuple[TokenScores, ...]:
    """Of the first validation rows with ``tokens`` the train rows that speak for them most, token by token."""
    examples = []
    for place, texts in enumerate(tokens[:EXAMPLES]):
        score_N = vectors[validation_vector(place)]
        for found in _scored(torch.argsort(score_N, stable=True).tolist()[::-1][:EXAMPLES], score_N, rows):
            scores = tuple(float(vectors[token_vector(place, token)][found.index]) for token in range(len(texts)))
            examples.append(
                TokenScores(validation_id=validation_ids[place], row=found, tokens=tuple(texts), scores=scores)
            )
    return tuple(examples)


def _histogram(score_N: Tensor) -> Histogram:
    low, high = float(score_N.min()), float(score_N.max())
    if low == high:
        return Histogram(edges=(low, high), counts=(len(score_N),))
    counts = torch.histc(score_N.double(), bins=BINS, min=low, max=high)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    return Histogram(edges=tuple(edges.tolist()), counts=tuple(int(count) for count in counts))


def _label(label: str, score_N: Tensor, rows: list[RowInfo]) -> LabelSummary:
    of_label = score_N[[row.label == label for row in rows]].double()
    return LabelSummary(
        label=label,
        rows=len(of_label),
        mean_score=float(of_label.mean()),
        share_negative=float((of_label < 0).double().mean()),
    )


def _scored(indices: list[int], score_N: Tensor, rows: list[RowInfo]) -> tuple[ScoredRow, ...]:
    return tuple(ScoredRow(index=i, score=float(score_N[i]), **rows[i].model_dump()) for i in indices)
