"""Commands about what a job found: scores, download, report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ascribe.cli.app import client_of
from ascribe.cli.arguments import (
    AsJson,
    DampingValue,
    JobId,
    Relative,
    Token,
    TrainId,
    ValidationId,
    Vector,
    VectorName,
)
from ascribe.cli.output import note, print_json, print_table
from ascribe.client import Format, Order, ScoredRows

FORMATS: dict[str, Format] = {
    ".jsonl": "ndjson",
    ".ndjson": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
}


class Direction(StrEnum):
    PROPONENTS = "proponents"
    OPPONENTS = "opponents"
    ABSOLUTE = "absolute"
    BOTH = "both"


DIRECTIONS: dict[Direction, tuple[Order, ...]] = {
    Direction.PROPONENTS: ("proponents",),
    Direction.OPPONENTS: ("opponents",),
    Direction.ABSOLUTE: ("absolute",),
    Direction.BOTH: ("opponents", "proponents"),
}


def scores(
    context: typer.Context,
    job: JobId,
    top: Annotated[int, typer.Option(min=1, help="So many rows of each kind.")] = 10,
    order: Annotated[
        Direction,
        typer.Option(
            help="Most positive rows (proponents), most negative (opponents), both, or the largest of either sign "
            "(absolute)."
        ),
    ] = Direction.BOTH,
    validation_id: ValidationId = None,
    token: Token = None,
    train_id: TrainId = None,
    vector: VectorName = Vector.MEAN,
    damping: DampingValue = None,
    relative: Relative = False,
    as_json: AsJson = False,
) -> None:
    """Show the train rows that matter most, with their texts.

    A positive score: giving the row more weight lowers the validation loss (a proponent). Rows that are strongly
    negative (opponents) work against the validation set; wrong labels are often among them.

    Examples:

      ascribe scores job_0197... --top 10

      ascribe scores job_0197... --order opponents --validation-id q1 --json
    """
    with client_of(context) as client:
        found = {
            kind: client.scores(
                job,
                vector=vector.value,
                validation_id=validation_id,
                token=token,
                train_id=train_id,
                damping=damping,
                relative=relative or None,
                order=kind,
                top_k=top,
            )
            for kind in DIRECTIONS[order]
        }
    if as_json:
        print_json({kind: [row.model_dump() for row in rows] for kind, rows in found.items()})
        return
    for kind, rows in found.items():
        print_scores(title(kind, vector), rows)


def download(
    context: typer.Context,
    job: JobId,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help=f"File to write; its ending chooses the format: {' '.join(FORMATS)}."),
    ],
    order: Annotated[Direction | None, typer.Option(help="Left out: as in the train set.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many rows. Left out: all.")] = None,
    validation_id: ValidationId = None,
    token: Token = None,
    train_id: TrainId = None,
    vector: VectorName = Vector.MEAN,
    damping: DampingValue = None,
    relative: Relative = False,
) -> None:
    """Save scores with their texts as JSON lines, CSV, Parquet or an Arrow stream, however many there are.

    Examples:

      ascribe download job_0197... -o scores.parquet

      ascribe download job_0197... -o matrix.csv --vector all
    """
    form = FORMATS.get(output.suffix.lower())
    if form is None:
        raise typer.BadParameter(f"the file's name must end in one of {' '.join(FORMATS)}")
    if order is Direction.BOTH:
        raise typer.BadParameter("one file has one order: proponents, opponents or absolute")
    kind = DIRECTIONS[order][0] if order else None
    with client_of(context) as client:
        client.download(
            job,
            output,
            format=form,
            vector=vector.value,
            validation_id=validation_id,
            token=token,
            train_id=train_id,
            damping=damping,
            relative=relative or None,
            order=kind,
            top_k=top,
        )
    note(f"wrote {output}")


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
    if kind == "absolute":
        return "largest, whatever the sign"
    if vector is Vector.MEAN:
        meaning = "more weight lowers" if kind == "proponents" else "more weight raises"
        return f"{kind}: {meaning} the validation loss"
    return f"{'highest' if kind == 'proponents' else 'lowest'} {vector.replace('_', ' ')}"


def print_scores(heading: str, rows: ScoredRows) -> None:
    cells = [(f"{row.score:+.4g}", row.id, row.label or "", row.text) for row in rows]
    print_table(("score", "id", "label", "text"), cells, title=heading)
