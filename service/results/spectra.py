"""Geometry of the report's numerics: spectra beside the damping, and rank agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ascribe.result import BlockDiagnostics, InverseRole, PathPoint

WIDTH, HEIGHT = 720.0, 200.0
FLOOR, CEILING = 1e-2, 1e8
"""Of an eigenvalue over the damping, on a log scale: what is far below the damping counts for nothing in the solve."""


@dataclass(frozen=True, slots=True)
class SpectrumLine:
    """The top eigenvalues of one block, each over the block's damping."""

    name: str
    points: str
    title: str


@dataclass(frozen=True, slots=True)
class SpectrumChart:
    """``damping_y`` is where an eigenvalue equals the damping: the inverse acts on what lies above."""

    lines: tuple[SpectrumLine, ...]
    damping_y: float
    columns: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """A ranking beside another: ``x`` and ``width`` of a bar from the middle of 100, left where they disagree."""

    words: str
    value: float | None
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class PathRow:
    point: PathPoint
    cells: tuple[AgreementRow, ...]


def spectrum_chart(blocks: Sequence[BlockDiagnostics]) -> SpectrumChart | None:
    """One line a block that was measured; None where none was."""
    curves = [
        (block, [value / block.damping for value in block.spectrum.top])
        for block in blocks
        if block.spectrum is not None and block.damping and block.spectrum.top
    ]
    if not curves:
        return None
    inside = [min(max(value, FLOOR), CEILING) for _, curve in curves for value in curve]
    low, high = min(0.1, *inside), max(10.0, *inside)
    columns = max(len(curve) for _, curve in curves)
    lines = []
    for block, curve in curves:
        spots = (
            f"{index / max(columns - 1, 1) * WIDTH:.1f},{_height(value, low, high):.1f}"
            for index, value in enumerate(curve)
        )
        assert block.spectrum is not None
        title = f"{block.name}: largest {block.spectrum.largest:.3g}, trace {block.spectrum.trace:.3g}"
        lines.append(SpectrumLine(block.name, " ".join(spots), title))
    return SpectrumChart(tuple(lines), round(_height(1.0, low, high), 1), columns, low, high)


def path_rows(points: Sequence[PathPoint]) -> list[PathRow]:
    return [PathRow(point, tuple(_agreement(f"{value}", value) for value in point.spearman)) for point in points]


def inverse_rows(role: InverseRole | None) -> list[AgreementRow]:
    """Each agreement in words; empty where it was not asked for."""
    if role is None:
        return []
    removed = f"products without the top {role.top_directions} directions of every block"
    return [
        _agreement("mean scores and plain gradient products", role.with_plain_product),
        _agreement(f"mean scores and {removed}", role.with_top_removed),
        _agreement(f"plain gradient products and {removed}", role.plain_with_top_removed),
        _agreement("one validation row's scores and its plain products (median)", role.rows_with_plain_product),
        _agreement("one validation row's scores and its products without them (median)", role.rows_with_top_removed),
    ]


def _agreement(words: str, value: float | None) -> AgreementRow:
    half = round(abs(value or 0.0) * 50, 2)
    return AgreementRow(words, value, 50 - half if (value or 0.0) < 0 else 50.0, half)


def _height(value: float, low: float, high: float) -> float:
    share = math.log(min(max(value, low), high) / low) / math.log(high / low)
    return HEIGHT * (1 - share)
