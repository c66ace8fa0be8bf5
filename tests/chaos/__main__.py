"""The long forms of the chaos suite, an hour in all.

    python -m tests.chaos [R1 R2 ...] [--short] [--fresh]

Each result is a file in .ascribe/chaos, and a run goes on after the last of them; then the table in
docs/reliability.md is written from all. A test that failed keeps its data and logs in a folder beside its result.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory
from typing import Any

import tests.chaos
from tests.chaos.outcome import Outcome, Scenario
from tests.chaos.report import Result, load, save, told, write_table

OUTPUT = Path(".ascribe/chaos")
PAGE = Path("docs/reliability.md")


def scenarios() -> list[Scenario[Any]]:
    """Every SCENARIO of this package, in the order of their numbers."""
    names = sorted(module.name for module in iter_modules(tests.chaos.__path__) if module.name != "__main__")
    modules = [import_module(f"{tests.chaos.__name__}.{name}") for name in names]
    found = [module.SCENARIO for module in modules if hasattr(module, "SCENARIO")]
    return sorted(found, key=lambda each: (_number(each.name), each.name))


def attempt(scenario: Scenario[Any], folder: Path, sizes: Any) -> Outcome:
    """Its outcome; a test that raises has not shown what it must, and the others go on."""
    try:
        return scenario.run(folder, sizes)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        traceback.print_exc()
        return Outcome({}, (f"{type(error).__name__}: {error}",))


def run_long(scenario: Scenario[Any]) -> Result:
    folder = OUTPUT / scenario.name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    outcome = attempt(scenario, folder.resolve(), scenario.long)
    result = Result.of(scenario, outcome, time.monotonic() - began)
    save(result, OUTPUT)
    if outcome.passed:
        shutil.rmtree(folder)
    return result


def run_short(scenario: Scenario[Any]) -> Outcome:
    with TemporaryDirectory() as folder:
        return attempt(scenario, Path(folder), scenario.short)


def say(name: str, outcome: Outcome | Result) -> bool:
    print(
        f"{name}: {'NOT REACHED' if outcome.broken else 'reached'}: {told(outcome.facts)}", *outcome.broken, sep="\n  "
    )
    sys.stdout.flush()
    return not outcome.broken


def _number(name: str) -> int:
    found = re.match(r"R(\d+)", name)
    assert found is not None
    return int(found[1])


def main() -> None:
    everything = scenarios()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(each.name for each in everything))
    parser.add_argument("--short", action="store_true", help="the forms that pytest runs; nothing is kept")
    parser.add_argument("--fresh", action="store_true", help="run again what has a result already")
    options = parser.parse_args()
    chosen = [each for each in everything if not options.names or each.name in options.names]
    missed = 0
    for each in chosen:
        kept = None if options.fresh else load(each.name, OUTPUT)
        missed += not say(each.name, run_short(each) if options.short else kept or run_long(each))
    if not options.short:
        write_table([result for each in everything if (result := load(each.name, OUTPUT))], PAGE)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
