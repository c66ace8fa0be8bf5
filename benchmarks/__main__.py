"""Our hot paths beside their floors, each measured in one run on one thread.

    python -m benchmarks [name ...] [--quick]

Ratios are what to quote: seconds of a small shared machine drift. The rows go to a file of their own in .ascribe/bench.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import gradients, latency, memory, queries, reuse, scoring
from benchmarks.result import Row, machine, save, show
from benchmarks.subject import FULL, QUICK, Sizes, Subject, demo_subject

OUTPUT = Path(".ascribe/bench")
BENCHMARKS: dict[str, Callable[[Subject, Sizes], Iterator[Row]]] = {
    "gradients": gradients.measure,
    "scoring": scoring.measure,
    "memory": memory.measure,
    "reuse": reuse.measure,
    "queries": queries.measure,
    "latency": latency.measure,
}


def run(names: Sequence[str], subject: Subject, sizes: Sizes) -> list[Row]:
    """The named benchmarks, all without a name, one after the other."""
    torch.set_num_threads(1)
    return [row for name in names or BENCHMARKS for row in BENCHMARKS[name](subject, sizes)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", choices=[*BENCHMARKS, []], help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all of it runs, and nothing else")
    options = parser.parse_args()
    rows = run(options.names, demo_subject(), QUICK if options.quick else FULL)
    facts = machine()
    show(rows, facts)
    print(f"Written to {save(rows, facts, OUTPUT)}")


if __name__ == "__main__":
    main()
