"""``ascribe compare``: do several jobs rank the same train rows alike?"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from ascribe.cli.app import client_of
from ascribe.cli.arguments import AsJson, JobId, ValidationId, Vector, VectorName
from ascribe.cli.describe import method
from ascribe.cli.output import note, number, print_json, print_table
from ascribe.client import Client
from ascribe.client.agreement import Agreement, agreement
from ascribe.job import Job
from ascribe.result import Manifest


@dataclass(frozen=True)
class Row:
    """A train row as people know it."""

    id: str
    label: str | None
    text: str


def compare(
    context: typer.Context,
    first: JobId,
    others: Annotated[list[str], typer.Argument(metavar="JOB...", help="One or more jobs over the same train rows.")],
    top: Annotated[int, typer.Option(min=1, help="Overlap is of so many rows at each end.")] = 10,
    disputes: Annotated[int, typer.Option(min=0, help="Show so many rows whose ranks lie furthest apart.")] = 10,
    validation_id: ValidationId = None,
    vector: VectorName = Vector.MEAN,
    as_json: AsJson = False,
) -> None:
    """Compare how jobs rank their train rows, and show the rows they disagree on.

    For each two jobs: Spearman's rank correlation, and how many of the most positive (proponents) and most negative
    (opponents) rows they share. The jobs must have had the same train rows; their methods may differ.

    Example: ascribe compare job_0197... job_0198... --top 20
    """
    ids = [first, *others]
    with client_of(context) as client:
        jobs = [client.get(each) for each in ids]
        check_comparable(jobs)
        rows, scorings = read_scores(client, ids, vector, validation_id)
    found = agreement(scorings, top_k=top, disputes=disputes)
    if as_json:
        print_json(as_document(found, jobs, rows, scorings))
    else:
        print_agreement(found, jobs, rows)


def check_comparable(jobs: Sequence[Job]) -> None:
    """Raises typer.BadParameter where their rows cannot be laid side by side."""
    results: list[Manifest] = []
    for job in jobs:
        if job.result is None:
            raise typer.BadParameter(f"{job.id} is {job.status}: only jobs that succeeded have scores")
        results.append(job.result)
    if len({(result.provenance.train_sha256, result.train_rows) for result in results}) > 1:
        raise typer.BadParameter("these jobs had different train rows: their ranks mean different things")
    if len({result.provenance.validation_sha256 for result in results}) > 1:
        note("the jobs had different validation rows: their scores answer different questions")


def read_scores(
    client: Client, ids: Sequence[str], vector: Vector, validation_id: str | None
) -> tuple[list[Row], list[array[float]]]:
    """The train rows, and for each job its scores in their order, 8 bytes a score."""
    rows: list[Row] = []
    scorings: list[array[float]] = []
    for job_id in ids:
        scores = array("d")
        wanted = not scorings  # ids and texts are the same in every job
        for row in client.iter_scores(job_id, vector=vector.value, validation_id=validation_id, order="row"):
            scores.append(row.score)
            if wanted:
                rows.append(Row(row.id, row.label, row.text))
        scorings.append(scores)
    return rows, scorings


def as_document(
    found: Agreement, jobs: Sequence[Job], rows: Sequence[Row], scorings: Sequence[array[float]]
) -> dict[str, object]:
    return {
        "rows": found.rows,
        "top_k": found.top_k,
        "jobs": [{"id": job.id, "name": job.spec.name, "method": method(job.spec)} for job in jobs],
        "pairs": [pair.model_dump() for pair in found.pairs],
        "disputes": [
            {
                **dispute.model_dump(),
                "scores": [scores[dispute.index] for scores in scorings],
                "id": rows[dispute.index].id,
                "label": rows[dispute.index].label,
                "text": rows[dispute.index].text,
            }
            for dispute in found.disputes
        ],
    }


def print_agreement(found: Agreement, jobs: Sequence[Job], rows: Sequence[Row]) -> None:
    names = [chr(ord("A") + index) if index < 26 else str(index) for index in range(len(jobs))]
    print_table(
        ("name", "job", "spec", "method"),
        [(name, job.id, job.spec.name or "-", method(job.spec)) for name, job in zip(names, jobs, strict=True)],
        title=f"{found.rows} train rows",
    )
    print_table(
        ("jobs", "spearman", "proponents", "opponents"),
        [
            (
                f"{names[pair.first]} {names[pair.second]}",
                number(pair.spearman),
                f"{pair.proponents:.0%}",
                f"{pair.opponents:.0%}",
            )
            for pair in found.pairs
        ],
        title=f"agreement: rank correlation, share of the {found.top_k} rows at each end that both name",
    )
    print_table(
        (*(f"rank {name}" for name in names), "id", "label", "text"),
        [
            (*(f"{rank:g}" for rank in dispute.ranks), row.id, row.label or "", row.text)
            for dispute in found.disputes
            for row in [rows[dispute.index]]
        ],
        title="disagreement: the rows whose ranks lie furthest apart, 1 for the highest score",
    )
