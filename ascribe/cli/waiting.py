"""What ``submit --wait`` shows meanwhile: a bar on a terminal, a line a phase in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ascribe.cli.output import note
from ascribe.job import Job


def headline(job: Job) -> str:
    """Where the job is, in a word or two."""
    words = job.progress.phase.replace("_", " ") if job.progress and job.status == "running" else str(job.status)
    return words + (f" (attempt {job.attempt})" if job.attempt > 1 else "")


def remaining(job: Job) -> str:
    """Time left in the present phase, where the worker can tell."""
    eta = job.progress.eta_seconds if job.progress else None
    if eta is None:
        return ""
    minutes, seconds = divmod(round(eta), 60)
    return f"{minutes}:{seconds:02d} left"


@contextmanager
def progress_display() -> Iterator[Callable[[Job], None]]:
    """A callback for ``Client.wait``."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_per_change()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("queued", total=1.0, left="")

        def show(job: Job) -> None:
            done = 1.0 if job.status.terminal else job.progress.fraction if job.progress else 0.0
            bar.update(task, description=headline(job), completed=done, left=remaining(job))

        yield show


def _line_per_change() -> Callable[[Job], None]:
    last = ""

    def show(job: Job) -> None:
        nonlocal last
        if (line := headline(job)) != last:
            note(line)
            last = line

    return show
