"""A job of a demo, from submit to success."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ascribe.client import Client
from ascribe.job import Job


def submit(client: Client, title: str, spec: dict[str, Any], console: Console) -> Job:
    """With a bar that shows the worker's own progress."""
    columns = (
        TextColumn("{task.description:34}"),
        BarColumn(),
        TextColumn("{task.fields[phase]:20}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=1.0, phase="queued")

        def show(job: Job) -> None:
            if job.progress:
                # The fraction is of a phase, and the clock of a bar that was full once stands still.
                done = min(job.progress.fraction, 0.999)
                progress.update(bar, completed=done, phase=job.progress.phase.replace("_", " "))

        job = client.create_and_wait(spec, on_progress=show)
        progress.update(bar, completed=1.0, phase="succeeded")
    return job
