"""Our hot paths beside their floors, and studies of the numerics, each in one run on one thread.

    python -m benchmarks [name ...] [--quick]

Without a name the hot paths. Their ratios are what to quote: seconds of a small shared machine drift. The rows go to a
file of their own in .ascribe/bench. A study runs when it is named, and goes on where it was interrupted: its cells are
files in a folder of its name there, to be removed for a new run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from benchmarks import (
    detection,
    estimate,
    gpu,
    gradients,
    latency,
    lissa,
    memory,
    pbrf,
    projection,
    queries,
    reuse,
    scale,
    schulz,
    scoring,
    selection,
    sharing,
    synthetic,
    throughput,
)
from benchmarks.cells import Study
from benchmarks.result import Row, machine, save, show
from benchmarks.subject import FULL, QUICK, Sizes, Subject, demo_subject

OUTPUT = Path(".ascribe/bench")
TABLE_WIDTH = 240
BENCHMARKS: dict[str, Callable[[Subject, Sizes], Iterator[Row]]] = {
    "gradients": gradients.measure,
    "scoring": scoring.measure,
    "memory": memory.measure,
    "reuse": reuse.measure,
    "queries": queries.measure,
    "latency": latency.measure,
    "throughput": throughput.measure,
    "sharing": sharing.measure,
    "estimate": estimate.measure,
    "projection": projection.measure,
    "selection": selection.measure,
}
STUDIES: dict[str, Study] = {
    "synthetic": synthetic.study,
    "detection": detection.study,
    "schulz": schulz.study,
    "lissa": lissa.study,
    "pbrf": pbrf.study,
    "gpu": gpu.study,
    "scale": scale.study,
}


def run(names: Sequence[str], subject: Subject, sizes: Sizes) -> list[Row]:
    """The named benchmarks, all without a name, one after the other."""
    torch.set_num_threads(1)
    return [row for name in names or BENCHMARKS for row in BENCHMARKS[name](subject, sizes)]


def run_study(name: str, folder: Path, *, quick: bool) -> None:
    """Print the study's tables as they come, as Markdown."""
    torch.set_num_threads(1)
    console = Console(width=TABLE_WIDTH)
    for table in STUDIES[name](folder / name, quick=quick):
        console.print(table)


def main() -> None:
    names = [*BENCHMARKS, *STUDIES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all of it runs, and nothing else")
    options = parser.parse_args()
    studies = [name for name in options.names if name in STUDIES]
    others = [name for name in options.names if name in BENCHMARKS]
    if others or not studies:
        rows = run(others, demo_subject(), QUICK if options.quick else FULL)
        facts = machine()
        show(rows, facts)
        print(f"Written to {save(rows, facts, OUTPUT)}")
    with TemporaryDirectory() as scratch:
        for name in studies:
            run_study(name, Path(scratch) if options.quick else OUTPUT, quick=options.quick)


if __name__ == "__main__":
    main()
