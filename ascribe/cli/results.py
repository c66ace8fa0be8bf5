"""Commands about what a job found: scores, report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ascribe.cli.app import client_of
from ascribe.cli.jobs import AsJson, JobId
from ascribe.cli.output import note, print_json, print_table
from ascribe.client import Order, ScoredRows
from ascribe.result import MEAN, SELF_INFLUENCE, TRAIN_LOSS


class Direction(StrEnum):
    PROPONENTS = "proponents"
    OPPONENTS = "opponents"
    BOTH = "both"


class Vector(StrEnum):
    MEAN = MEAN
    SELF_INFLUENCE = SELF_INFLUENCE
    TRAIN_LOSS = TRAIN_LOSS


def scores(
    context: typer.Context,
    job: JobId,
    top: Annotated[int, typer.Option(min=1, help="So many rows of each kind.")] = 10,
    order: Annotated[
        Direction, typer.Option(help="Most positive rows (proponents), most negative (opponents), or both.")
    ] = Direction.BOTH,
    validation_id: Annotated[
        str | None, typer.Option(help="Scores for this one validation row in place of the mean.")
    ] = None,
    vector: Annotated[Vector, typer.Option(help="Which numbers.")] = Vector.MEAN,
    as_json: AsJson = False,
) -> None:
    """Show the train rows that matter most, with their texts.

    A positive score: giving the row more weight lowers the validation loss (a proponent). Rows that are strongly
    negative (opponents) work against the validation set; wrong labels are often among them.

    Examples:

      ascribe scores job_0197... --top 10

      ascribe scores job_0197... --order opponents --validation-id q1 --json
    """
    wanted: tuple[Order, ...] = ("opponents", "proponents")
    if order is not Direction.BOTH:
        wanted = ("proponents",) if order is Direction.PROPONENTS else ("opponents",)
    with client_of(context) as client:
        found = {
            kind: client.scores(job, vector=vector, validation_id=validation_id, order=kind, top_k=top)
            for kind in wanted
        }
    if as_json:
        print_json({kind: [row.model_dump() for row in rows] for kind, rows in found.items()})
        return
    for kind, rows in found.items():
        print_scores(title(kind, vector), rows)


def report(
    context: typer.Context,
    job: JobId,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", dir_okay=False, writable=True)],
) -> None:
    """Save the job's report, one self-contained HTML page.

    Example: ascribe report job_0197... -o report.html
    """
    with client_of(context) as client:
        page = client.report(job)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"cannot write {output}: {error.strerror}") from error
    note(f"wrote {output}")


def title(kind: Order, vector: Vector) -> str:
    """What the table shows, in words that fit the vector: only mean scores have proponents."""
    if vector is Vector.MEAN:
        meaning = "more weight lowers" if kind == "proponents" else "more weight raises"
        return f"{kind}: {meaning} the validation loss"
    return f"{'highest' if kind == 'proponents' else 'lowest'} {vector.replace('_', ' ')}"


def print_scores(heading: str, rows: ScoredRows) -> None:
    cells = [(f"{row.score:+.4g}", row.id, row.label, row.text) for row in rows]
    print_table(("score", "id", "label", "text"), cells, title=heading)
