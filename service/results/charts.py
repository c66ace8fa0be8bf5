"""Geometry of the report's small charts: numbers to SVG coordinates, nothing else. Widths are of a box 100 wide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ascribe.result import BlockDiagnostics, Histogram, LabelSummary, ScoredRow, TokenScores

WIDTH, HEIGHT = 720.0, 200.0
RESIDUAL_FLOOR, RESIDUAL_CEILING = 1e-16, 1.0

TONES = 4
"""Strengths that the style sheet has of each sign."""


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class HistogramChart:
    bars: tuple[Rect, ...]
    zero_x: float | None
    """Where the score is 0; None when all scores have one sign."""
    low: float
    high: float
    most: int


@dataclass(frozen=True, slots=True)
class BlockBar:
    block: BlockDiagnostics
    name: str
    """Without what all blocks' names share."""
    residual: float
    condition: float
    damping: float
    severity: tuple[int, float]


@dataclass(frozen=True, slots=True)
class LabelBar:
    summary: LabelSummary
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class ScoreBar:
    row: ScoredRow
    width: float


@dataclass(frozen=True, slots=True)
class PhaseBar:
    phase: str
    seconds: float
    width: float


def histogram(data: Histogram) -> HistogramChart:
    """One bar a bin; a bin that holds a row at all can be seen."""
    low, high = data.edges[0], data.edges[-1]
    span = (high - low) or 1.0
    most = max(data.counts)
    step = WIDTH / len(data.counts)
    bars = []
    for index, rows in enumerate(data.counts):
        left, right = data.edges[index], data.edges[index + 1]
        height = max(2.0, rows / most * HEIGHT) if rows else 0.0
        tone = "plain" if left < 0 < right else "opponent" if right <= 0 else "proponent"
        title = f"{rows} rows from {left:.3g} to {right:.3g}"
        bars.append(
            Rect(round(index * step, 2), round(HEIGHT - height, 2), round(step - 1.5, 2), round(height, 2), tone, title)
        )
    zero_x = round(-low / span * WIDTH, 2) if low < 0 < high else None
    return HistogramChart(tuple(bars), zero_x, low, high, most)


def block_bars(blocks: Sequence[BlockDiagnostics]) -> list[BlockBar]:
    """Residuals on a log scale from 1e-16 to 1, condition and damping on one from the least to the largest there is."""
    prefix = _shared_prefix([block.name for block in blocks])
    conditions = [block.condition_bound for block in blocks]
    dampings = [block.damping for block in blocks]
    return [
        BlockBar(
            block=block,
            name=block.name.removeprefix(prefix).removesuffix(".weight"),
            residual=_log_share(block.relative_residual, RESIDUAL_FLOOR, RESIDUAL_CEILING),
            condition=_log_share(block.condition_bound, 1.0, _largest(conditions)),
            damping=_log_share(block.damping, _least(dampings) / 10, _largest(dampings)),
            severity=(block.status.severity, block.relative_residual),
        )
        for block in blocks
    ]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """``tokens`` with the style of each."""

    example: TokenScores
    tokens: list[tuple[str, str]]


def label_bars(labels: Sequence[LabelSummary]) -> list[LabelBar]:
    """Bars to both sides of the middle, the lowest mean first."""
    largest = max((abs(label.mean_score) for label in labels), default=0) or 1.0
    bars = []
    for label in sorted(labels, key=lambda label: label.mean_score):
        width = round(abs(label.mean_score) / largest * 50, 2)
        bars.append(LabelBar(label, 50 - width if label.mean_score < 0 else 50.0, width))
    return bars


def score_bars(rows: Sequence[ScoredRow]) -> list[ScoreBar]:
    largest = max((abs(row.score) for row in rows), default=0) or 1.0
    return [ScoreBar(row, round(abs(row.score) / largest * 100, 2)) for row in rows]


def token_rows(examples: Sequence[TokenScores]) -> list[TokenRow]:
    """Every token with a tone of its sign, as strong as its score is in its row."""
    rows = []
    for example in examples:
        largest = max(map(abs, example.scores), default=0) or 1.0
        tones = []
        for score in example.scores:
            strength = round(TONES * abs(score) / largest)
            tones.append(f"{'proponent' if score >= 0 else 'opponent'}-{strength}" if strength else "")
        rows.append(TokenRow(example, list(zip(example.tokens, tones, strict=True))))
    return rows


def phase_bars(seconds: Mapping[str, float]) -> list[PhaseBar]:
    phases = {phase: value for phase, value in seconds.items() if phase != "total"}
    longest = max(phases.values(), default=0) or 1.0
    return [
        PhaseBar(phase.replace("_", " "), value, round(value / longest * 100, 2)) for phase, value in phases.items()
    ]


def _shared_prefix(names: Sequence[str]) -> str:
    """Whole parts of dotted names, the last part never."""
    if len(names) < 2:
        return ""
    first, last = min(names).split("."), max(names).split(".")
    shared = 0
    while shared < min(len(first), len(last)) - 1 and first[shared] == last[shared]:
        shared += 1
    if shared and first[shared].isdigit():
        shared -= 1  # "layer.0" says more than "0"
    return "".join(f"{part}." for part in first[:shared])


def _log_share(value: float | None, low: float, high: float) -> float:
    """Where ``value`` stands between ``low`` and ``high`` on a log scale, 0 to 100."""
    if value is None:
        return 0.0
    if value <= low or high <= low:
        return 0.0 if value < high else 100.0
    return round(min(1.0, math.log(value / low) / math.log(high / low)) * 100, 2)


def _largest(values: Sequence[float | None]) -> float:
    return max((value for value in values if value is not None), default=1.0)


def _least(values: Sequence[float | None]) -> float:
    return min((value for value in values if value), default=1.0)
