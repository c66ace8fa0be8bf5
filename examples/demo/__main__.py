"""``make demo``: fine-tune a model on noisy labels, ask Ascribe which are wrong, compare with the truth.

Everything goes the way a user's job goes: HTTP to the API, through Redis and Celery to a worker, and back.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job
from ascribe.result import TRAIN_LOSS, ScoredRow
from examples.demo.detection import by_opposition, by_value, detect
from examples.demo.finetune import ROWS, prepare
from examples.demo.methods import METHODS, Method
from examples.demo.report import BASELINE, HEADINGS, Line, detection_svg, write_report
from examples.jobs import submit

HOME = Path(".ascribe/demo")
TABLE_WIDTH = 126
DAMPING_UNITS = {"relative": "mean", "relative_to_largest": "largest", "absolute": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the split, the flipped labels and the fine-tuning")
    seed = parser.parse_args().seed
    home = HOME / f"seed-{seed}"
    console = Console()
    started = time.monotonic()
    data_root = prepare(home / "data", seed=seed)
    flipped = frozenset(json.loads((data_root / ROWS / "flipped.json").read_text()))
    with (
        console.status("Starting the embedded server, the API and a worker"),
        Stack(data_root, state_dir=home / "state") as stack,
        Client(stack.url) as client,
    ):
        console.print(f"Ascribe is up at {stack.url}")
        jobs = [submit(client, method.name, method.spec(), console) for method in METHODS]
        scores = [client.scores(job.id) for job in jobs]
        suspects = client.scores(jobs[0].id, order="opponents", top_k=10)
        losses = client.scores(jobs[0].id, vector=TRAIN_LOSS)
        (home / "job-report.html").write_text(client.report(jobs[0].id), encoding="utf-8")
    lines = [_line(*each, flipped) for each in zip(METHODS, jobs, scores, strict=True)]
    lines.append(Line(BASELINE, detect(by_value(losses), flipped)))
    svg = detection_svg(lines)
    (home / "detection.svg").write_text(svg, encoding="utf-8")
    write_report(home / "report.html", lines, suspects, _verdict(lines), flipped, svg)
    _print(lines, suspects, flipped)
    console.print(f"\n{_verdict(lines)}\n")
    console.print(f"The picture: {home / 'report.html'}")
    console.print(f"The first job's own report: {home / 'job-report.html'}")
    console.print(f"Done in {time.monotonic() - started:.0f} s")
    return 0


def _line(method: Method, job: Job, scores: list[ScoredRow], flipped: frozenset[str]) -> Line:
    assert job.result is not None
    diagnostics = job.result.diagnostics
    train = diagnostics.cache["train"]
    damping = job.spec.damping
    return Line(
        name=method.name,
        detection=detect(by_opposition(scores), flipped),
        damping="-" if damping is None else f"{damping.factors[0]:g} x {DAMPING_UNITS[damping.form]}",
        seconds=f"{diagnostics.seconds['total']:.1f}",
        cache=f"{train.hit_rows / train.rows:.0%}",
        residual=f"{diagnostics.worst_relative_residual:.1e}",
        status=diagnostics.status.value,
        job_id=job.id,
    )


def _verdict(lines: list[Line]) -> str:
    """Which ranking to use here, in one sentence, from the figures of this run."""
    best = max(lines, key=lambda line: line.detection.auc)
    influence = max((line for line in lines if line.name != BASELINE), key=lambda line: line.detection.auc)
    plain = next(line for line in lines if line.name == "identity")
    gain = (
        f"of the influence scores {influence.name} ranks best (AUC {influence.detection.auc:.3f}; "
        f"without curvature {plain.detection.auc:.3f})"
    )
    if best.name == BASELINE:
        return (
            f"To find wrong labels here, use the training loss (AUC {best.detection.auc:.3f}): a model trained this "
            "briefly has not memorised them, so they stand out by loss alone; "
            f"{gain}, and it also says which answers a row harms."
        )
    return f"To find wrong labels here, use {best.name}: {gain}; training loss reaches {lines[-1].detection.auc:.3f}."


def _print(lines: list[Line], suspects: list[ScoredRow], flipped: frozenset[str]) -> None:
    # A log, or a narrow terminal, gets the whole table rather than a cut one.
    console = Console(width=max(Console().width, TABLE_WIDTH))
    rows = Table(title=f"The ten most suspicious training rows ({lines[0].name})", title_justify="left")
    rows.add_column("score", justify="right")
    rows.add_column("given label")
    rows.add_column("text", max_width=70, no_wrap=True, overflow="ellipsis")
    rows.add_column("truth")
    for row in suspects:
        rows.add_row(
            f"{row.score:.3g}", row.label, " ".join(row.text.split()), "flipped" if row.id in flipped else "as given"
        )
    console.print(rows)
    table = Table(title=f"Finding the {len(flipped)} flipped labels", title_justify="left")
    for heading in HEADINGS:
        table.add_column(
            heading, justify="left" if heading in ("method", "damping", "status") else "right", no_wrap=True
        )
    for line in lines:
        table.add_row(*line.cells())
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
