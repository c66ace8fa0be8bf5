"""Commands from a spec file to a job's end: init, validate, submit, watch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from ascribe.cli.app import client_of
from ascribe.cli.arguments import AsJson, JobId
from ascribe.cli.output import note, print_json, say
from ascribe.cli.specs import Overrides, SpecFile, read_spec
from ascribe.cli.waiting import progress_display
from ascribe.client import Client, succeeded
from ascribe.client.errors import ClientError, JobTimeout
from ascribe.client.waiting import Deadline
from ascribe.job import Job

Wait = Annotated[bool, typer.Option("--wait", help="Stay until the job has ended; the exit code tells how.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds to wait at most. The job goes on when they are over.")
]


def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, or - for standard output.")] = Path(
        "spec.yaml"
    ),
) -> None:
    """Write a job spec to start from, with a comment on every choice.

    Example: ascribe init spec.yaml
    """
    example = files("ascribe.cli").joinpath("example.yaml").read_text(encoding="utf-8")
    if str(path) == "-":
        typer.echo(example, nl=False)
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(example)
    except FileExistsError:
        raise typer.BadParameter(f"{path} is there already: name another file") from None
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from error
    note(f"wrote {path}; next: ascribe validate {path}")


def validate(context: typer.Context, spec: SpecFile, changes: Overrides = None) -> None:
    """Check a spec without running it: what would run, how much of it, what is cached.

    Example: ascribe validate spec.yaml --set solver.kind=cholesky
    """
    text = read_spec(spec, changes)
    with client_of(context) as client, text.blamed():
        print_json(client.validate(text.document))


def submit(
    context: typer.Context,
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC...", help="YAML or JSON files, a job spec each, or - for one from standard input."
        ),
    ],
    changes: Overrides = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Submit jobs. Prints an id a job to stdout, everything else to stderr.

    Exit codes with --wait: 0 all succeeded, 3 one failed, 4 was cancelled, 5 timeout; 2 for a spec that is refused.

    Examples:

      ascribe submit spec.yaml --wait

      ascribe submit spec.yaml --set damping.relative=0.01 --set name=softer --wait --timeout 600

      JOB=$(ascribe submit spec.yaml)
    """
    texts = [read_spec(each, changes) for each in specs]
    with client_of(context) as client:
        jobs = []
        for text in texts:
            with text.blamed():
                jobs.append(client.create(text.document))
            if not as_json:
                say(jobs[-1].id)
        if wait:
            jobs = wait_for(client, jobs, timeout)
        elif not as_json:
            note(f"{jobs[-1].status}; see: ascribe watch {jobs[-1].id}")
    if as_json:
        for job in jobs:
            print_json(job.model_dump(mode="json"))
    if wait:
        judge(jobs)


def watch(context: typer.Context, job: JobId, timeout: Timeout = None) -> None:
    """Follow a job to its end; the exit code tells how it ended, as with submit --wait.

    Example: ascribe watch job_0197... && ascribe scores job_0197...
    """
    with client_of(context) as client:
        judge(wait_for(client, [client.get(job)], timeout))


def retry(
    context: typer.Context, job: JobId, wait: Wait = False, timeout: Timeout = None, as_json: AsJson = False
) -> None:
    """Submit the spec of a job that has ended again. Prints the new job's id; what the first one cached is used.

    Example: ascribe retry job_0197... --wait
    """
    with client_of(context) as client:
        follow(client, client.retry(job), wait=wait, timeout=timeout, as_json=as_json)


def follow(client: Client, job: Job, *, wait: bool, timeout: float | None, as_json: bool) -> None:
    """What a command that has made one job says of it, and how it ends."""
    if not as_json:
        say(job.id)
    if wait:
        (job,) = wait_for(client, [job], timeout)
    elif not as_json:
        note(f"{job.status}; see: ascribe watch {job.id}")
    if as_json:
        print_json(job.model_dump(mode="json"))
    if wait:
        judge([job])


def wait_for(client: Client, jobs: list[Job], timeout: float | None) -> list[Job]:
    """The jobs once all have ended. Raises JobTimeout."""
    deadline = Deadline(timeout)
    for number, job in enumerate(jobs):
        try:
            with progress_display() as on_progress:
                jobs[number] = client.wait(job.id, timeout=deadline.left(), on_progress=on_progress)
        except KeyboardInterrupt:
            note(f"{job.id} goes on; stop it with: ascribe cancel {job.id}")
            raise typer.Exit(130) from None
        except JobTimeout:
            note(f"look again with: ascribe watch {job.id}")
            raise
    return jobs


def judge(jobs: list[Job]) -> None:
    """Raises what tells of the first job that did not succeed."""
    unhappy: list[ClientError] = []
    for job in jobs:
        try:
            succeeded(job)
            note(f"succeeded; see: ascribe scores {job.id} --top 10")
        except ClientError as error:
            unhappy.append(error)
    if unhappy:
        raise unhappy[0]
