"""A long solve is heard between its steps, and can be ended there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator

from ascribe.job import Phase, Progress
from worker.curvature.block import CurvatureKind, build_block
from worker.operators import Damped
from worker.progress import Cancelled, Reporter
from worker.solvers.base import Solver
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.lissa import Lissa
from worker.solvers.schulz import Schulz
from worker.solvers.solve import solve
from worker.ticks import listening, tick

SOLVERS: list[tuple[CurvatureKind, Solver[Any]]] = [
    ("gfim", Schulz()),
    ("gfim", Schulz(start="published")),
    ("empirical_fisher", Cholesky()),
    ("empirical_fisher", DataInf()),
    ("empirical_fisher", Lissa()),
]


@pytest.mark.parametrize(("kind", "solver"), SOLVERS, ids=lambda value: getattr(type(value), "__name__", ""))
def test_every_solver_with_a_loop_ticks(kind: CurvatureKind, solver: Solver[Any]) -> None:
    rows_NP = torch.randn(50, 4 * 16, generator=Generator().manual_seed(0))
    block = build_block("block", kind, [rows_NP], rank=4, long_side=16)
    heard: list[int] = []
    with listening(lambda: heard.append(1)):
        solve(Damped(block.operator, 0.1), block.to_rhs(rows_NP[:3]), solver)
    assert len(heard) > 1


def test_nobody_needs_to_listen() -> None:
    tick()


def test_a_cancel_is_noticed_within_a_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.progress.SEND_EVERY_SECONDS", 0.0)
    seen: list[Progress] = []

    def cancel_at_the_third(progress: Progress) -> bool:
        seen.append(progress)
        return len(seen) == 3

    def solve_for_long() -> None:
        with Reporter(cancel_at_the_third).phase(Phase.SOLVING):
            for _ in range(100):
                tick()

    with pytest.raises(Cancelled):
        solve_for_long()
    assert len(seen) == 3
    tick()  # the phase is over: nobody hears it
    assert len(seen) == 3


def test_a_phase_ends_whole() -> None:
    seen: list[Progress] = []

    def keep(progress: Progress) -> bool:
        seen.append(progress)
        return False

    reporter = Reporter(keep)
    with reporter.phase(Phase.WRITING, 5):
        reporter.advance(2)
    assert (seen[-1].done, seen[-1].total, seen[-1].fraction) == (5, 5, 1.0)
