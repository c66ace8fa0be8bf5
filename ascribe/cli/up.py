"""``ascribe up``: the whole service on this machine until Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from ascribe.cli.exits import OTHER
from ascribe.cli.output import complain, note, say


def up(
    data: Annotated[
        Path,
        typer.Option(
            envvar="ASCRIBE_DATA_ROOT", help="Folder with models and datasets. Jobs can read below it and nowhere else."
        ),
    ] = Path("data"),
    cache: Annotated[
        Path | None, typer.Option(envvar="ASCRIBE_CACHE_DIR", help="Folder for gradients. Left out: STATE/cache.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API, 0 for any free one.")] = 0,
    state: Annotated[
        Path | None,
        typer.Option(
            envvar="ASCRIBE_STATE_DIR",
            help="Folder for jobs, scores and logs. Left out: ~/.local/state/ascribe (or $XDG_STATE_HOME/ascribe), "
            "where the other commands look for the running API. With another folder, set $ASCRIBE_STATE_DIR for them.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="CPU workers, one job each at a time.")] = 1,
) -> None:
    """Start a server, the API and workers on this machine; Ctrl-C ends them all.

    Jobs and results are kept: the next `up` goes on where this one ended. Needs the `embedded` extra.

    Examples:

      ascribe up --data data

      ascribe up --data /srv/models --port 8000 --workers 2
    """
    if os.name == "nt":
        complain("`ascribe up` runs on Linux and macOS; from Windows, talk to an API there: set ASCRIBE_URL")
        raise typer.Exit(OTHER)
    # Only here: the other commands run where there is no fcntl, and without the extra.
    from ascribe.embedded.child import StackError
    from ascribe.embedded.host import require_extra
    from ascribe.embedded.stack import Stack

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asked to be left alone
            signal.signal(number, _interrupt)
    try:
        require_extra()
        stack = Stack(data, cache_dir=cache, state_dir=state, port=port, workers=workers)
        note("starting the server, the API and the workers; the first time takes up to a minute")
        with stack:
            print_welcome(stack.url, stack.log_dir, stack.data_root)
            stack.supervise(note)
    except KeyboardInterrupt:
        note("ended; jobs and results are kept for the next `ascribe up`")
    except StackError as error:
        complain(str(error))
        raise typer.Exit(OTHER) from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def print_welcome(url: str, logs: Path, data_root: Path) -> None:
    """Where everything is and what to type next."""
    facts = {
        "API": url,
        "docs": f"{url}/docs",
        "data root": str(data_root),
        "logs": str(logs),
        "next": "ascribe submit spec.yaml --wait   (in another terminal)",
        "end": "Ctrl-C",
    }
    console = Console(highlight=False)
    if not console.is_terminal:
        for name, value in facts.items():
            say(f"{name}: {value}")
        return
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(f"[bold]{name}[/bold]", value)
    console.print(Panel(grid, title="Ascribe is up", title_align="left", expand=False))
