"""One row of the table, the machine it was seen on, and how both are shown and kept."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.processor import processor

PACKAGES = ("torch", "transformers", "peft", "fastapi", "uvicorn", "redis")


@dataclass(frozen=True, slots=True)
class Row:
    """``value`` is what the goal speaks of; ``at_least`` says on which side of ``goal`` it should lie, if there is one.

    ``ours`` and ``beside`` say in words and units what was divided, or what else was seen.
    """

    benchmark: str
    value: float
    unit: str
    ours: str
    beside: str
    sizes: str
    goal: float | None = None
    at_least: bool = True
    within: float | None = None
    """In place of a goal: how far from 1 the value may be."""

    @property
    def reached(self) -> bool | None:
        if self.within is not None:
            return abs(self.value - 1) <= self.within
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def goal_text(self) -> str:
        if self.within is not None:
            return f"1 ± {self.within:g}"
        return "-" if self.goal is None else f"{'≥' if self.at_least else '≤'} {self.goal:g}"


def machine() -> dict[str, str]:
    """What a result depends on, with no host name in it."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
    } | {name: version(name) for name in PACKAGES}


def show(rows: list[Row], facts: dict[str, str]) -> None:
    console = Console(width=max(Console().width, 150))
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    table = Table("benchmark", "sizes", "ours", "beside", "value", "goal", "reached")
    for row in rows:
        reached = {True: "yes", False: "NO", None: "-"}[row.reached]
        table.add_row(
            row.benchmark,
            row.sizes,
            row.ours,
            row.beside,
            f"{row.value:.3g} {row.unit}".strip(),
            row.goal_text,
            reached,
        )
    console.print(table)


def save(rows: list[Row], facts: dict[str, str], folder: Path) -> Path:
    """Write all as JSON; a file a run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    document = {"machine": facts, "rows": [asdict(row) | {"reached": row.reached} for row in rows]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
