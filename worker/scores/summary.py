"""The mean score at a glance: extremes, histogram, by label. Made once by the worker, read by dashboards."""

from __future__ import annotations

import torch
from torch import Tensor

from ascribe.result import Histogram, LabelSummary, RowInfo, ScoredRow, Summary

TOP_ROWS = 50
BINS = 40


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
