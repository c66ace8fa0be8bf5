"""How things look: tables on a terminal, tab-separated lines in a pipe, problems on stderr.

Texts come from training data and may hold anything, so nothing is printed before :func:`clean` took the control
characters out: an escape sequence in a row must not drive the reader's terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def clean(value: object) -> str:
    """One line of printable text."""
    return "".join(letter for letter in " ".join(str(value).split()) if letter.isprintable())


def complain(message: str) -> None:
    """To stderr, each line cleaned, the first one red on a terminal."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for number, line in enumerate(message.splitlines()):
        indent = line[: len(line) - len(line.lstrip())]
        console.print(Text(indent + clean(line), style="" if number else "red"))


def note(message: str) -> None:
    """An aside to stderr, so that stdout holds only what was asked for."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(clean(message), style="dim"))


def say(message: str) -> None:
    Console(highlight=False, soft_wrap=True).print(Text(clean(message)))


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table on a terminal; in a pipe a header and tab-separated lines, whole whatever their length."""
    console = Console(highlight=False)
    cells = [[clean(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        if title:
            sys.stdout.write(f"# {title}\n")
        for line in (columns, *cells):
            sys.stdout.write("\t".join(line) + "\n")
        return
    if title:
        console.print(Text(title, style="bold"))
    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    # The first column is what one copies into the next command: never cut.
    table.columns[0].min_width = max((len(row[0]) for row in cells), default=0)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Name and value, one a line; a value of None is left out."""
    console = Console(highlight=False)
    shown = {name: clean(value) for name, value in facts.items() if value is not None}
    if not console.is_terminal:
        for name, value in shown.items():
            sys.stdout.write(f"{name}\t{value}\n")
        return
    grid = Table.grid(padding=(0, 2))
    for name, value in shown.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    console.print(grid)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
