"""Is the solver that ``auto`` picks the fastest? Every candidate in turn, over a grid of sizes and dampings.

    python -m benchmarks.auto [--quick]

A solve is ``init`` and ``compute`` of every block, and the residual's measurement, in seconds of the one thread: what
else runs on the machine takes turns with it, and is not counted. Candidates take turns too; the median of three counts.
Gradients are Gaussian with a variance falling like 1 / i and rows of log-normal length. What was timed on this machine
stays in .ascribe/bench/auto.json: a run that was ended goes on from there; remove the file to measure anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Generator, Tensor

from ascribe.errors import PlanExceedsSteps
from ascribe.planning.choose import Candidate, Plan, plan
from ascribe.planning.problem import DampingForm, Problem
from ascribe.sources.checkpoints import BlockShape
from ascribe.status import SolveStatus
from benchmarks.result import Row, machine, save, show
from worker.operators import Damped, DenseOperator, LinearOperator, RowsOperator
from worker.solvers.base import Solver
from worker.solvers.cg import Cg
from worker.solvers.cholesky import Cholesky
from worker.solvers.lissa import Lissa
from worker.solvers.schulz import Schulz
from worker.solvers.solve import solve
from worker.spectrum import largest_eigenvalue

OUTPUT = Path(".ascribe/bench")
TOLERANCE = 1e-6
REPEATS = 3
WITHIN = 1.25
# Who is predicted to take so much longer than the pick, and longer than this, is not run.
_HOPELESS, _PATIENCE_SECONDS = 10, 5

SOLVERS: dict[str, Solver[Any]] = {
    "cholesky": Cholesky(),
    "schulz": Schulz(tolerance=TOLERANCE),
    "cg": Cg(tolerance=TOLERANCE),
    "lissa": Lissa(tolerance=TOLERANCE),
}
DAMPINGS: tuple[tuple[DampingForm, float], ...] = (("relative", 0.1), ("relative", 10.0), ("relative_to_largest", 5e-3))


@dataclass(frozen=True)
class Point:
    """``rows`` is set for a matrix known by its rows, unset for one held in memory."""

    size: int
    columns: int
    damping: tuple[DampingForm, float]
    rows: int | None = None
    blocks: int = 1

    def __str__(self) -> str:
        shape = f"D = {self.size}" if self.rows is None else f"N = {self.rows}, P = {self.size}"
        return f"{shape}, K = {self.columns}, B = {self.blocks}, {self.damping[0]} {self.damping[1]:g}"

    def problem(self) -> Problem:
        return Problem(
            curvature="gfim" if self.rows is None else "empirical_fisher",
            blocks=(BlockShape("block", rank=1, long_side=self.size),) * self.blocks,
            train_rows=self.rows or 4 * self.size,
            columns=self.columns,
            classes=2,
            damping=self.damping,
            tolerance=TOLERANCE,
        )

    def operator(self) -> Damped:
        grad_NP = _gradients(self.rows or 4 * self.size, self.size)
        operator: LinearOperator = RowsOperator([grad_NP])
        if self.rows is None:
            operator = DenseOperator(grad_NP.T.double() @ grad_NP.double() / len(grad_NP))
        form, value = self.damping
        if form == "relative":
            return Damped(operator, value * operator.trace() / operator.size)
        return Damped(operator, value * largest_eigenvalue(operator, Generator().manual_seed(0)))


FULL_GRID = (
    *(Point(*point) for point in product((128, 256, 512, 1024), (1, 8, 128), DAMPINGS)),
    *(Point(*point, blocks=8) for point in product((128, 384), (8, 128), DAMPINGS[:1])),
    *(Point(size, columns, damping, rows) for (rows, size), columns, damping in product(
        ((250, 4096), (1000, 2048), (1000, 8192), (4000, 1024)), (1, 16), DAMPINGS
    )),
)  # fmt: skip
QUICK_GRID = (Point(16, 2, DAMPINGS[0]), Point(16, 2, DAMPINGS[2], rows=30))


def measure(grid: tuple[Point, ...], kept: Path | None = None) -> Iterator[Row]:
    """One row a point, and the share of the points where the pick was right; ``kept`` remembers what was timed."""
    facts = machine()
    known = _Known(kept, f"{facts['processor']}, {facts['threads']} threads")
    right = 0
    for point in grid:
        picked = plan(point.problem())
        outcomes = known.get(point) or known.put(point, _time(point, picked))
        row = _row(point, picked, outcomes)
        right += bool(row.reached)
        yield row
    yield Row(
        "auto: the pick is the fastest or within 25 % of it",
        right / len(grid),
        "of the grid",
        f"{right} points",
        f"of {len(grid)}",
        f"residual {TOLERANCE:g}",
        goal=1.0,
    )


class _Known:
    """Seconds by point and solver, for one machine, in a JSON file written after every point."""

    def __init__(self, path: Path | None, machine: str) -> None:
        self._path, self._machine = path, machine
        self._all: dict[str, dict[str, dict[str, float | str]]] = {}
        if path is not None and path.exists():
            self._all = json.loads(path.read_text(encoding="utf-8"))
        self._mine = self._all.setdefault(machine, {})

    def get(self, point: Point) -> dict[str, float | str] | None:
        return self._mine.get(str(point))

    def put(self, point: Point, outcomes: dict[str, float | str]) -> dict[str, float | str]:
        self._mine[str(point)] = outcomes
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._all, indent=2) + "\n", encoding="utf-8")
        return outcomes


def _time(point: Point, picked: Plan) -> dict[str, float | str]:
    """The median seconds of every candidate, or why there are none."""
    operator = point.operator()
    rhs_PK = torch.randn(point.size, point.columns, generator=Generator().manual_seed(1), dtype=torch.float64)
    outcomes: dict[str, float | str] = {
        candidate.solver: f"not run, {candidate.seconds:.0f} s predicted"
        for candidate in picked.candidates
        if candidate.feasible and _hopeless(candidate, picked)
    }
    seconds: dict[str, list[float]] = {
        candidate.solver: []
        for candidate in picked.candidates
        if candidate.feasible and candidate.solver not in outcomes
    }
    for _ in range(REPEATS):
        for solver in [solver for solver in seconds if solver not in outcomes]:
            started = time.process_time()
            try:
                statuses = {solve(operator, rhs_PK, SOLVERS[solver]).status for _ in range(point.blocks)}
            except PlanExceedsSteps:
                outcomes[solver] = "refused"
                continue
            seconds[solver].append(time.process_time() - started)
            if statuses != {SolveStatus.CONVERGED}:
                outcomes[solver] = " and ".join(statuses)
    return outcomes | {solver: median(times) for solver, times in seconds.items() if solver not in outcomes}


def _hopeless(candidate: Candidate, picked: Plan) -> bool:
    return candidate.seconds > max(_PATIENCE_SECONDS, _HOPELESS * picked.seconds)


def _row(point: Point, picked: Plan, outcomes: dict[str, float | str]) -> Row:
    """A pick that did not get there has no ratio: it is given as infinite."""
    timed = {solver: value for solver, value in outcomes.items() if isinstance(value, float)}
    predicted = {candidate.solver: candidate.seconds for candidate in picked.candidates}
    described = {
        solver: f"{solver} {value:.2g} s ({predicted[solver]:.2g} predicted)"
        if isinstance(value, float)
        else f"{solver} {value}"
        for solver, value in outcomes.items()
    }
    return Row(
        "auto: pick / fastest",
        timed[picked.pick] / min(timed.values()) if picked.pick in timed else float("inf"),
        "x",
        described.get(picked.pick, picked.pick),
        ", ".join(text for solver, text in described.items() if solver != picked.pick) or "no other",
        str(point),
        goal=WITHIN,
        at_least=False,
    )


def _gradients(rows: int, size: int) -> Tensor:
    generator = Generator().manual_seed(0)
    grad_NP = torch.randn(rows, size, generator=generator)
    grad_NP *= torch.arange(1, size + 1, dtype=torch.float32).rsqrt()
    grad_NP *= torch.randn(rows, 1, generator=generator).exp()
    return grad_NP


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tiny points: shows that it runs, and nothing else")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows = list(measure(QUICK_GRID) if quick else measure(FULL_GRID, OUTPUT / "auto.json"))
    facts = machine()
    show(rows, facts)
    print(f"Written to {save(rows, facts, OUTPUT)}")


if __name__ == "__main__":
    main()
