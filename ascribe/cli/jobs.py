"""Commands about jobs: submit, validate, jobs, show, cancel, delete."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ascribe.cli.app import client_of
from ascribe.cli.describe import job_facts, job_row
from ascribe.cli.output import note, print_facts, print_json, print_table, say
from ascribe.cli.waiting import progress_display
from ascribe.client import Client, succeeded
from ascribe.client.errors import JobTimeout
from ascribe.job import Job, JobState

SpecFile = Annotated[
    str, typer.Argument(metavar="SPEC", help="A JSON file with the job spec, or - for standard input.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as submit printed it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


def submit(
    context: typer.Context,
    spec: SpecFile,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until the job has ended; the exit code tells how.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most. The job goes on when they are over.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job. Prints its id to stdout, everything else to stderr.

    Exit codes with --wait: 0 succeeded, 3 failed, 4 cancelled, 5 timeout; 2 for a spec that is refused.

    Examples:

      ascribe submit spec.json --wait

      jq '.damping.relative = 0.01' spec.json | ascribe submit - --wait --timeout 600

      JOB=$(ascribe submit spec.json)
    """
    document = read_spec(spec)
    with client_of(context) as client:
        job = client.create(document)
        if not as_json:
            say(job.id)
        if wait:
            job = _wait(client, job, timeout)
        elif not as_json:
            note(f"{job.status}; see: ascribe show {job.id}")
    if as_json:
        print_json(job.model_dump(mode="json"))
    if wait:
        succeeded(job)
        note(f"succeeded; see: ascribe scores {job.id} --top 10")


def _wait(client: Client, job: Job, timeout: float | None) -> Job:
    try:
        with progress_display() as on_progress:
            return client.wait(job.id, timeout=timeout, on_progress=on_progress)
    except KeyboardInterrupt:
        note(f"{job.id} goes on; stop it with: ascribe cancel {job.id}")
        raise typer.Exit(130) from None
    except JobTimeout:
        note(f"look again with: ascribe show {job.id}")
        raise


def validate(context: typer.Context, spec: SpecFile) -> None:
    """Check a spec without running it: what would run, how much of it, what is cached.

    Example: ascribe validate spec.json
    """
    with client_of(context) as client:
        print_json(client.validate(read_spec(spec)))


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


def read_spec(path: str) -> dict[str, Any]:
    """The JSON object in the file. What is in it is the API's to judge. Raises typer.BadParameter."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter("not UTF-8 text") from error
    if not isinstance(document, dict):
        raise typer.BadParameter("a job spec is a JSON object")
    return document
