"""R16: a real worker is killed while it caches gradients, by the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.by_pytest import Sizes, run_pytest
from tests.chaos.outcome import Outcome, Scenario

PATHS = ("tests/e2e/test_crash.py", "tests/e2e/test_sharing.py")


def run(folder: Path, sizes: Sizes) -> Outcome:
    return run_pytest(folder, sizes, *PATHS)


SCENARIO = Scenario(
    name="R16",
    title="a real worker SIGKILLed while it caches gradients, alone and with another",
    must="at most one shard recomputed, bit-identical scores",
    run=run,
    short=Sizes(),
    long=Sizes(),
)
