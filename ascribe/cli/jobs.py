"""Commands about jobs: jobs, show, cancel, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from ascribe.cli.app import client_of
from ascribe.cli.arguments import AsJson, JobId
from ascribe.cli.describe import job_facts, job_row
from ascribe.cli.output import print_facts, print_json, print_table, say
from ascribe.job import JobState


def jobs(
    context: typer.Context,
    status: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    Example: ascribe jobs --status running
    """
    with client_of(context) as client:
        found = list(client.list(status=status, limit=limit))
    if as_json:
        print_json([job.model_dump(mode="json") for job in found])
    else:
        print_table(("job", "status", "name", "method", "created"), map(job_row, found))


def show(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show one job: its state and progress, and when it has succeeded, how accurate the solve was.

    Example: ascribe show job_0197...
    """
    with client_of(context) as client:
        record = client.get(job)
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_facts(job_facts(record))


def cancel(context: typer.Context, job: JobId) -> None:
    """Ask a job to stop. A running one stops within one batch."""
    with client_of(context) as client:
        say(client.cancel(job).status)


def delete(context: typer.Context, job: JobId) -> None:
    """Remove a job that has ended, and its scores."""
    with client_of(context) as client:
        client.delete(job)
