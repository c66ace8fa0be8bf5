"""How many products Schulz saves by starting from an inverse at hand: along a damping path, and when rows have come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Generator, Tensor

from benchmarks.cells import Cell, cell, seen_on, table
from benchmarks.systems import dense, make_system, residual_of
from worker.operators import Damped, DenseOperator
from worker.solvers.schulz import Schulz, SchulzState

RELATIVE = 0.1
"""Damping of the grown curvature, of the mean of its diagonal."""


@dataclass(frozen=True, slots=True)
class Sizes:
    size: int = 384
    path: tuple[float, ...] = (1e1, 1e2, 1e3, 1e4, 1e5)
    """Bounds on the condition: a decade less damping each."""
    rows: int = 4000
    new_rows: tuple[int, ...] = (25, 50, 100, 200)


WARM = Sizes()
QUICK = Sizes(size=16, path=(1e1, 1e2), rows=400, new_rows=(2,))


def warm_starts(folder: Path, sizes: Sizes, solvers: Mapping[str, Schulz]) -> Iterator[Table]:
    path = cell(folder / "path.json", partial(_path, sizes, solvers))
    title = f"Warm start along a damping path, {sizes.size} x {sizes.size}, each value from the one before it"
    yield _table(title, "condition, at most", path)
    grown = cell(folder / "grown.json", partial(_grown, sizes, solvers))
    title = (
        f"Warm start with more rows, {sizes.size} x {sizes.size}, {sizes.rows} rows at first, damping {RELATIVE:g} of "
        "the mean of the diagonal"
    )
    yield _table(title, "new rows", grown)


def _path(sizes: Sizes, solvers: Mapping[str, Schulz]) -> Cell:
    curvature = make_system(sizes.size, sizes.path[-1]).operator
    systems = [Damped(curvature, curvature.norm_bound() / (condition - 1)) for condition in sizes.path]
    lines = []
    for name, solver in solvers.items():
        state = solver.init(systems[0])
        for condition, system in zip(sizes.path[1:], systems[1:], strict=True):
            state = solver.init_from(system, state)
            lines.append(_line(f"{condition:g}", name, solver.init(system), state))
    return {"lines": lines}


def _grown(sizes: Sizes, solvers: Mapping[str, Schulz]) -> Cell:
    generator = Generator().manual_seed(0)
    scale_D = torch.logspace(0, -1, sizes.size, dtype=torch.float64)
    x_ND = torch.randn(sizes.rows + max(sizes.new_rows), sizes.size, generator=generator, dtype=torch.float64) * scale_D
    before = _second_moment(x_ND[: sizes.rows])
    lines = []
    for name, solver in solvers.items():
        earlier = solver.init(before)
        for new in sizes.new_rows:
            system = _second_moment(x_ND[: sizes.rows + new])
            lines.append(_line(str(new), name, solver.init(system), solver.init_from(system, earlier)))
    return {"lines": lines}


def _second_moment(x_ND: Tensor) -> Damped:
    matrix_DD = x_ND.T @ x_ND / len(x_ND)
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    return Damped(DenseOperator(matrix_DD), RELATIVE * float(matrix_DD.diagonal().mean()))


def _line(what: str, method: str, cold: SchulzState, warm: SchulzState) -> dict[str, Any]:
    assert warm.stats.plan is not None
    return {
        "what": what, "method": method, "cold": cold.stats.products, "warm": warm.stats.products,
        "started": "warm" if warm.stats.plan["warm_start"] else "cold",
        "residual": float(torch.linalg.matrix_norm(residual_of(dense(warm.operator), warm.inverse))),
    }  # fmt: skip


def _table(title: str, first: str, found: Cell) -> Table:
    """Products include the one that measures, and for new rows the one that tells whether the start is of use."""
    result = table(title, first, "method", "products, cold", "products, warm", "started", "Frobenius norm of I - A X")
    for line in found["lines"]:
        numbers = (str(line[key]) for key in ("what", "method", "cold", "warm", "started"))
        result.add_row(*numbers, f"{line['residual']:.1e}")
    result.caption = seen_on([found])
    return result
