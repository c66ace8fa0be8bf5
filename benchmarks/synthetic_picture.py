"""The synthetic study's picture: error against products, and against seconds, for each number of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cells import Cell

# Okabe & Ito's palette: told apart by every kind of colour vision.
COLORS = ("#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#009E73", "#56B4E9", "#000000", "#999999")
FLOOR, CEILING = 1e-14, 1e4


def draw(cells: Sequence[Cell], path: Path) -> None:
    """One SVG; ``cells`` are of one size."""
    counts = sorted({each["count"] for each in cells})
    names = list(dict.fromkeys(each["method"] for each in cells))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ascribe", "font.size": 8}):
        figure = Figure(figsize=(3 * len(counts), 6), layout="constrained", facecolor="white")
        grid = figure.subplots(2, len(counts), sharex="row", sharey=True, squeeze=False)
        for column, count in enumerate(counts):
            chosen = [each for each in cells if each["count"] == count]
            for row, key in enumerate(("products", "seconds")):
                _panel(grid[row][column], chosen, key, names)
            condition = chosen[0]["condition"]
            grid[0][column].set_title(f"D = {chosen[0]['size']}, N = {count}, condition {condition:.3g}", fontsize=8)
        for row in grid:
            row[0].set_ylabel("relative error")
        figure.suptitle("solid: products of two matrices, dashed: of the matrix with a vector", fontsize=8)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Axes, cells: Sequence[Cell], key: str, names: Sequence[str]) -> None:
    for each in cells:
        points = [point for point in each["points"] if math.isfinite(point["error"])]
        style = "-" if each["product"] == "matrix" else "--"
        axes.plot(
            [_value(point, key) for point in points],
            [min(max(point["error"], FLOOR), CEILING) for point in points],
            style, marker="o", markersize=3, linewidth=1.2,
            color=COLORS[names.index(each["method"])], label=each["method"],
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", ylim=(FLOOR / 3, CEILING * 3))
    axes.set_xlabel(key)
    axes.minorticks_off()
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _value(point: dict[str, Any], key: str) -> float:
    # A processor's clock ticks: the shortest of runs may take none.
    return max(float(point[key]), 1e-6)
