"""The command that turns scores into a train set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ascribe.cli.app import client_of
from ascribe.cli.arguments import AsJson, DampingValue, JobId, Relative, ValidationId
from ascribe.cli.output import note, print_json, print_table
from ascribe.client.messages import SelectionOptions


class End(StrEnum):
    PROPONENTS = "proponents"
    OPPONENTS = "opponents"


class Share(StrEnum):
    NONE = "none"
    PROPORTIONAL = "proportional"
    BALANCED = "balanced"


def select(
    context: typer.Context,
    job: JobId,
    output: Annotated[Path, typer.Option("--output", "--out", "-o", help="File to write, as JSON lines.")],
    fraction: Annotated[float | None, typer.Option(help="Of the train rows, such as 0.2.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="So many rows, in place of a fraction.")] = None,
    order: Annotated[
        End, typer.Option(help="Rows that lower the validation loss most (proponents), or that raise it (opponents).")
    ] = End.PROPONENTS,
    quota: Annotated[
        Share,
        typer.Option(help="Of each label its own best rows: as many as its share of all rows, or the same of each."),
    ] = Share.NONE,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Also rows whose texts and label stand in a better row.")
    ] = False,
    validation_id: ValidationId = None,
    damping: DampingValue = None,
    relative: Relative = False,
    as_json: AsJson = False,
) -> None:
    """Save the best train rows, whole, with their scores: ready for a trainer, or for another job.

    Examples:

      ascribe select job_0197... --fraction 0.2 --out rows.jsonl

      ascribe select job_0197... --count 500 --quota balanced --out rows.jsonl
    """
    if (fraction is None) == (count is None):
        raise typer.BadParameter("give --fraction or --count, one of them")
    which = SelectionOptions(
        fraction=fraction,
        count=count,
        order=order.value,
        quota=quota.value,
        duplicates="keep" if keep_duplicates else "drop",
        validation_id=validation_id,
        damping=damping,
        relative=relative or None,
    )
    with client_of(context) as client:
        found = client.select(job, output, **which)
    if as_json:
        print_json(found.model_dump())
        return
    note(
        f"wrote {output}: {found.selected} of {found.rows} rows, scores {found.lowest_score:.4g} to "
        f"{found.highest_score:.4g}, {found.duplicates} duplicates passed over"
    )
    if found.labels:
        cells = [(label.label, str(label.rows), str(label.selected)) for label in found.labels]
        print_table(("label", "rows", "selected"), cells)
