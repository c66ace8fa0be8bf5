"""HyperINF's synthetic study: which method solves ``(mean x x^T + 0.01 I) u = v``, after how many products.

Every method runs with increasing caps on its steps. Products are with the whole matrix: for Schulz of two matrices,
for the others of the matrix with a vector, ``D`` times cheaper; so the seconds stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table
from torch import Generator, Tensor

from benchmarks import published
from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.synthetic_picture import draw
from benchmarks.timing import device_at_hand, timed
from worker.operators import Damped, DenseOperator, RowsOperator
from worker.solvers.base import Solver
from worker.solvers.cg import Cg
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.lissa import Lissa
from worker.solvers.schulz import Schulz

DAMPING = 0.01
TARGET = 1e-4
"""The error at which methods are compared: float32 reaches it at these conditions."""
TOLERANCE = 1e-9
PICTURE = Path("docs/images/synthetic.svg")
CG_CAPS = (5, 10, 20, 40, 80, 160)
MANY = (10, 30, 100, 300, 1000, 3000)


@dataclass(frozen=True, slots=True)
class Problem:
    """``x_true_DK`` solves ``(C + 0.01 I) x = v`` by LU in float64. ``rows`` and ``dense`` are the same matrix."""

    rows: Damped
    dense: Damped
    a_DD: Tensor
    rhs_DK: Tensor
    x_true_DK: Tensor
    condition: float
    largest: float


@dataclass(frozen=True, slots=True)
class Answer:
    x_DK: Tensor
    products: float
    finished: bool
    """More steps than the cap allows would change nothing."""


@dataclass(frozen=True, slots=True)
class Method:
    """``solve`` with a cap on the steps; ``product`` says what its products are products with."""

    name: str
    product: str
    caps: tuple[int, ...]
    solve: Callable[[Problem, int], Answer]


def study(folder: Path, *, quick: bool = False) -> Iterator[Table]:
    """One table of every size and method, and the picture of the largest size."""
    device = device_at_hand()
    sizes = (16, 32) if quick else (512, 1024, 2048, *((4096,) if device.type == "cuda" else ()))
    counts = (8, 64) if quick else (200, 800, 3200, 12800)
    cells = [_cell(method, size, count, device, folder) for size in sizes for count in counts for method in METHODS]
    seconds = "seconds" if device.type == "cuda" else "CPU seconds"
    result = table(
        f"(mean x x^T + {DAMPING} I) u = v for N standard normal x [D] and one v: error ||u - u*|| / ||u*|| to float64",
        "D", "N", "condition", "method", "a product is with a", "error", "products", seconds,
        f"products to {TARGET:g}", f"{seconds} to {TARGET:g}",
    )  # fmt: skip
    for each in cells:
        result.add_row(*_line(each))
    result.caption = f"{seen_on(cells)}, device {device.type}"
    draw([each for each in cells if each["size"] == sizes[-1]], folder / PICTURE.name if quick else PICTURE)
    yield result


def make_problem(size: int, count: int, device: torch.device) -> Problem:
    """The same numbers for the same sizes."""
    generator = Generator().manual_seed(size * 100_000 + count)
    x_ND = torch.randn(count, size, generator=generator, dtype=torch.float64).to(device)
    rhs_DK = torch.randn(size, 1, generator=generator, dtype=torch.float64).to(device)
    matrix_DD = x_ND.T @ x_ND / count
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    a_DD = matrix_DD + DAMPING * torch.eye(size, dtype=torch.float64, device=device)
    eigenvalue_D = torch.linalg.eigvalsh(matrix_DD)
    largest = float(eigenvalue_D[-1])
    return Problem(
        rows=Damped(RowsOperator([x_ND]), DAMPING),
        dense=Damped(DenseOperator(matrix_DD), DAMPING),
        a_DD=a_DD,
        rhs_DK=rhs_DK,
        x_true_DK=torch.linalg.solve(a_DD, rhs_DK),
        condition=(largest + DAMPING) / (float(eigenvalue_D[0]) + DAMPING),
        largest=largest,
    )


def _cell(method: Method, size: int, count: int, device: torch.device, folder: Path) -> Cell:
    path = folder / f"d{size}-n{count}-{slug(method.name)}.json"
    return cell(path, lambda: _curve(method, size, count, device))


def _curve(method: Method, size: int, count: int, device: torch.device) -> Cell:
    problem = make_problem(size, count, device)
    points: list[dict[str, float]] = []
    for cap in method.caps:
        answer, seconds = timed(partial(method.solve, problem, cap), device)
        error = float((answer.x_DK - problem.x_true_DK).norm() / problem.x_true_DK.norm())
        points.append({"cap": cap, "products": answer.products, "error": error, "seconds": seconds})
        if answer.finished:
            break
    return {
        "size": size, "count": count, "condition": problem.condition,
        "method": method.name, "product": method.product, "points": points,
    }  # fmt: skip


def _line(each: Cell) -> tuple[str, ...]:
    points = each["points"]
    last = points[-1]
    reached = next((point for point in points if point["error"] <= TARGET), None)
    to_target = ("-", "-") if reached is None else (f"{reached['products']:.4g}", f"{reached['seconds']:.3g}")
    return (
        str(each["size"]), str(each["count"]), f"{each['condition']:.3g}", each["method"], each["product"],
        f"{last['error']:.1e}", f"{last['products']:.4g}", f"{last['seconds']:.3g}", *to_target,
    )  # fmt: skip


def _ours(on: Literal["dense", "rows"], capped: Callable[[int], Solver[Any]]) -> Callable[[Problem, int], Answer]:
    """A solver of the product, from nothing to the solution, without the measurement that ``solve`` adds."""

    def run(problem: Problem, cap: int) -> Answer:
        solver, operator = capped(cap), problem.dense if on == "dense" else problem.rows
        x_DK, _, stats = solver.compute(solver.init(operator), problem.rhs_DK)
        return Answer(x_DK, stats.products, finished=stats.iterations < cap)

    return run


def _published_schulz(problem: Problem, steps: int) -> Answer:
    inverse_DD = published.schulz(problem.a_DD.float(), steps)
    return Answer(inverse_DD.double() @ problem.rhs_DK, 2 * steps, finished=False)


def _as_shipped(problem: Problem, steps: int) -> Answer:
    matmul, rhs_DK = problem.dense.operator.matmul, problem.rhs_DK.float()
    return Answer(published.lissa_as_shipped(matmul, DAMPING, rhs_DK, steps).double(), steps, finished=False)


def _corrected(problem: Problem, steps: int) -> Answer:
    matmul, rhs_DK = problem.dense.operator.matmul, problem.rhs_DK.float()
    x_DK = published.lissa_corrected(matmul, DAMPING, problem.largest, rhs_DK, steps).double()
    return Answer(x_DK, steps, finished=False)


METHODS = (
    Method("Schulz, published", "matrix", (5, 10, 15, 20, 25, 30), _published_schulz),
    Method("Schulz, ours", "matrix", tuple(range(1, 8)), _ours("dense", lambda cap: Schulz(TOLERANCE, iterations=cap))),
    Method("LiSSA, as shipped", "vector", (1, 2, 5, 10), _as_shipped),
    Method("LiSSA, corrected", "vector", MANY, _corrected),
    Method("LiSSA, ours", "vector", MANY, _ours("rows", lambda cap: Lissa(steps=cap, tolerance=TOLERANCE))),
    # Without its sketch, whose products come before the steps and are not counted among theirs.
    Method("CG", "vector", CG_CAPS, _ours("dense", lambda cap: Cg(TOLERANCE, max_iterations=cap, rank=0))),
    Method("DataInf", "vector", (2,), _ours("rows", lambda _: DataInf())),
    Method("Cholesky", "vector, after a factor", (2,), _ours("dense", lambda _: Cholesky())),
)
