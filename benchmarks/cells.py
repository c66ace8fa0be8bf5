"""A study's cells, each kept in a file of its own: what was interrupted goes on where it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from rich.box import MARKDOWN
from rich.table import Table

from benchmarks.result import machine

Cell = dict[str, Any]


class Study(Protocol):
    """Tables, each when its cells are there. ``quick`` shows with tiny sizes that all of it runs."""

    def __call__(self, folder: Path, *, quick: bool = False) -> Iterator[Table]: ...


def slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")


def cell(path: Path, compute: Callable[[], Cell]) -> Cell:
    """What ``path`` holds, or where there is no such file what ``compute`` returns, with the machine it was seen on.

    A study whose definition changes needs another folder: a file is taken as it is.
    """
    if not path.exists():
        found = compute() | {"machine": machine()}
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        unfinished.rename(path)
        print(f"{path.stem}: done", flush=True)
    kept: Cell = json.loads(path.read_text(encoding="utf-8"))
    return kept


def seen_on(cells: Iterable[Cell]) -> str:
    """The machines of these cells in words, each once, and the dates of the first and the last."""
    machines = [each["machine"] for each in cells]
    dates = sorted(facts["date"] for facts in machines)
    others = {", ".join(f"{key} {value}" for key, value in facts.items() if key != "date") for facts in machines}
    return f"{dates[0]} to {dates[-1]}; {' | '.join(sorted(others))}"


def table(title: str, *headings: str) -> Table:
    """An empty table that prints as Markdown, for the documents."""
    return Table(*headings, title=title, title_justify="left", caption_justify="left", box=MARKDOWN)
