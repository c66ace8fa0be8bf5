"""R11: random histories of the ledger, many more than pytest runs by default."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.by_pytest import Sizes, run_pytest
from tests.chaos.outcome import Outcome, Scenario

EXAMPLES = "ASCRIBE_CHAOS_EXAMPLES"
"""Read by tests/conformance/test_ledger_machine.py."""


def run(folder: Path, sizes: Sizes) -> Outcome:
    outcome = run_pytest(folder, sizes, "tests/conformance/test_ledger_machine.py")
    return Outcome({"histories of each ledger": int(sizes.env[EXAMPLES])}).beside(outcome)


SCENARIO = Scenario(
    name="R11",
    title="Hypothesis state machine of the ledger, in memory and on a real server",
    must="terminal is final, at most one commit, fence monotone",
    run=run,
    short=Sizes({EXAMPLES: "25"}),
    long=Sizes({EXAMPLES: "1000"}),
)
