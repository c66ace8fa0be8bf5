"""The demo's picture and page: how fast each ranking finds the flipped labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ascribe.result import ScoredRow
from examples.demo.detection import Detection

BASELINE = "training loss"
# Okabe & Ito's palette: told apart by every kind of colour vision.
COLORS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#009E73")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table: a method (or a baseline, which has no solve) and how it did."""

    name: str
    detection: Detection
    damping: str = "-"
    seconds: str = "-"
    cache: str = "-"
    residual: str = "-"
    status: str = "-"
    job_id: str | None = None

    def cells(self) -> tuple[str, ...]:
        detection = self.detection
        found = (f"{detection.found_after(share):.0%}" for share in (0.2, 0.4))
        solve = (self.seconds, self.cache, self.residual, self.status)
        return (self.name, self.damping, f"{detection.auc:.3f}", *found, *solve)


HEADINGS = (
    "method", "damping", "ROC-AUC", "found@20%", "found@40%", "seconds", "cache", "residual", "status",
)  # fmt: skip


def detection_svg(lines: Sequence[Line]) -> str:
    """Detection curves as one SVG, readable on white and on dark."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ascribe", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for line, color in zip(lines, COLORS, strict=True):
            found = line.detection.found
            share = [100 * i / (len(found) - 1) for i in range(len(found))]
            style = "--" if line.name == BASELINE else "-"
            # The first method is drawn wide: the second solves the same system, and would hide it.
            width = 5 if line is lines[0] else 2
            axes.plot(share, [100 * f for f in found], style, color=color, linewidth=width, label=line.name)
        axes.plot([0, 100], [0, 100], ":", color="#888888", linewidth=1, label="chance")
        axes.set(xlim=(0, 100), ylim=(0, 101), xlabel="training rows inspected, %", ylabel="flipped labels found, %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False, loc="lower right")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def write_report(
    path: Path, lines: Sequence[Line], suspects: Sequence[ScoredRow], verdict: str, flipped: frozenset[str], svg: str
) -> None:
    """One self-contained page: the picture, the table, the ten most suspicious rows."""
    heading = "".join(f"<th>{escape(name)}</th>" for name in HEADINGS)
    table = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line.cells()) + "</tr>" for line in lines)
    rows = "".join(
        f"<tr><td>{escape(row.text)}</td><td>{escape(row.label or '')}</td><td>{row.score:.3g}</td>"
        f"<td>{'flipped' if row.id in flipped else ''}</td></tr>"
        for row in suspects
    )
    picture = svg[svg.index("<svg") :]
    path.write_text(
        PAGE.format(heading=heading, table=table, rows=rows, picture=picture, verdict=escape(verdict)), encoding="utf-8"
    )


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Ascribe demo: which labels are wrong?</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h1 {{ font-weight: 600 }} svg {{ max-width: 100%; height: auto }} .wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }}
th {{ font-weight: 600; color: #555 }} .verdict {{ font-size: 1.15rem }}
</style>
<h1>Which training labels are wrong?</h1>
<p class="verdict">{verdict}</p>
{picture}
<h2>Methods</h2><div class="wide"><table><tr>{heading}</tr>{table}</table></div>
<h2>The ten most suspicious rows</h2>
<div class="wide"><table><tr><th>text</th><th>given label</th><th>score</th><th>truth</th></tr>{rows}</table></div>
</html>
"""
