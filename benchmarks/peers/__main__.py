"""Peers beside us, printed as Markdown.

    python -m benchmarks.peers setup            their environment, once: some minutes
    python -m benchmarks.peers classifier       the same adapter, rows and pairs: seconds, memory, agreement
    python -m benchmarks.peers language         gradient products of SmolLM2, beside bergson
    python -m benchmarks.peers lds              what each ranking is worth, by retraining; goes on where it stopped

What is measured is kept, a file each, in .ascribe/bench/peers; remove a file to measure again. `--quick` shows that all
of it runs, with tiny sizes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from benchmarks.peers import classifier, language, lds_compare
from benchmarks.peers.environment import set_up

OUTPUT = Path(".ascribe/bench/peers")
WIDTH = 240
COMPARISONS = {"classifier": classifier.compare, "language": language.compare, "lds": lds_compare.compare}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("setup", *COMPARISONS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "setup":
        set_up()
        return
    console = Console(width=WIDTH)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) if options.quick else OUTPUT
        for table in COMPARISONS[options.what](folder.absolute(), quick=options.quick):
            console.print(table)


if __name__ == "__main__":
    main()
