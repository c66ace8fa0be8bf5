"""Schulz against batched Cholesky on a CUDA card, at many sizes and numbers of blocks; and the Gauss-Newton product.

All solve the same systems for the same right-hand sides, from nothing to the solutions, whose residual is measured in
float64. Without a card nothing is measured; a quick run takes the same way on the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.table import Table
from torch import Generator, Tensor

from benchmarks.cells import Cell, cell, seen_on, table
from benchmarks.timing import device_at_hand, timed
from worker.operators import Damped, DenseOperator, RowsOperator
from worker.solvers.schulz import Schulz
from worker.solvers.schulz_inverse import Precision

T = TypeVar("T")

TOLERANCE = 1e-6
REPEATS = 3
# In float64 and at once: the matrices, their sum with the damping, and what a step or a factorisation works on.
MATRICES_HELD = 12
PRECISIONS: tuple[Precision, ...] = ("float64", "float32", "tfloat32", "bfloat16")
SOLVERS = {each: Schulz(TOLERANCE, precision=each, memory_bytes=2**40) for each in PRECISIONS}
"""By the precision of the early steps; the last are float64's."""


@dataclass(frozen=True, slots=True)
class Sizes:
    sizes: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    blocks: tuple[int, ...] = (1, 4, 16, 64, 128)
    conditions: tuple[float, ...] = (1e2, 1e4)
    columns: int = 64
    rate_size: int = 8192
    rows: tuple[int, int] = (16384, 73728)
    """Of the Gauss-Newton product: N rows of P, float32."""


FULL = Sizes()
QUICK = Sizes(sizes=(16, 32), blocks=(1, 3), columns=2, rate_size=64, rows=(32, 64))


def study(folder: Path, *, quick: bool = False) -> Iterator[Table]:
    """A table of every size and number of blocks that fits, and one of the Gauss-Newton product."""
    device, sizes = device_at_hand(), QUICK if quick else FULL
    if device.type != "cuda" and not quick:
        print("No CUDA card is at hand: nothing was measured, and nothing is claimed.")
        return
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor, to show that it runs"
    rates = cell(folder / "rates.json", lambda: {each: _rate(each, sizes.rate_size, device) for each in PRECISIONS})
    cells = [
        cell(
            folder / f"d{size}-b{blocks}-k{condition:g}.json",
            partial(_solve, size, blocks, condition, sizes.columns, device),
        )
        for condition in sizes.conditions
        for size in sizes.sizes
        for blocks in sizes.blocks
        if _fits(size, blocks, device)
    ]
    rated = ", ".join(f"{each} {rates[each] / 1e12:.3g}" for each in PRECISIONS)
    result = table(
        f"Schulz to {TOLERANCE:g} and Cholesky, {sizes.columns} right-hand sides a block; {card}; "
        f"products at {rated} TFLOP/s",
        "condition", "D", "blocks", "method", "products", "seconds", "float64 Cholesky / it",
        "share of the card's rate", "residual",
    )  # fmt: skip
    for each in cells:
        for line in _lines(each, rates):
            result.add_row(*line)
    result.caption = seen_on([rates, *cells])
    yield result
    yield _gauss_newton(folder, sizes, device)


def _lines(each: Cell, rates: Cell) -> Iterator[tuple[str, ...]]:
    sizes = (f"{each['condition']:g}", str(each["size"]), str(each["blocks"]))
    exact = each["methods"]["Cholesky, float64"]["seconds"]
    for name, found in each["methods"].items():
        seconds, products, share = found["seconds"], "-", "-"
        if "products" in found:
            low, full = found["low_products"], found["products"] - found["low_products"]
            flops = 2.0 * each["size"] ** 3 * each["blocks"]
            least = flops * (low / rates[found["precision"]] + full / rates["float64"])
            products, share = f"{low} + {full} float64", f"{least / seconds:.2f}"
        yield (*sizes, name, products, f"{seconds:.3g}", f"{exact / seconds:.3g}", share, f"{found['residual']:.1e}")


def _fits(size: int, blocks: int, device: torch.device) -> bool:
    needed = MATRICES_HELD * 8 * blocks * size**2
    return device.type != "cuda" or needed <= torch.cuda.get_device_properties(device).total_memory


def _solve(size: int, blocks: int, condition: float, columns: int, device: torch.device) -> Cell:
    operators = _systems(size, blocks, condition, device)
    generator = Generator(device).manual_seed(1)
    rhs_BDK = torch.randn(blocks, size, columns, generator=generator, device=device, dtype=torch.float64)
    methods: dict[str, dict[str, object]] = {}
    for precision, solver in SOLVERS.items():
        (x_BDK, low, products, notes), seconds = _best(partial(_schulz, operators, rhs_BDK, solver), device)
        methods[f"Schulz, {precision}"] = {
            "precision": precision, "low_products": low, "products": products, "notes": notes,
            "seconds": seconds, "residual": _residual(operators, x_BDK, rhs_BDK),
        }  # fmt: skip
    for dtype in (torch.float64, torch.float32):
        x_BDK, seconds = _best(partial(_cholesky, operators, rhs_BDK, dtype), device)
        name = f"Cholesky, {str(dtype).removeprefix('torch.')}"
        methods[name] = {"seconds": seconds, "residual": _residual(operators, x_BDK, rhs_BDK)}
    return {"size": size, "blocks": blocks, "condition": condition, "methods": methods}


def _systems(size: int, blocks: int, condition: float, device: torch.device) -> list[Damped]:
    """Second moments of gradients whose variances fall by 1e4, each damped to the same bound on its condition."""
    generator = Generator(device).manual_seed(0)
    scale_D = torch.logspace(0, -2, size, device=device, dtype=torch.float64)
    systems = []
    for _ in range(blocks):
        x_ND = torch.randn(2 * size, size, generator=generator, device=device, dtype=torch.float64) * scale_D
        operator = DenseOperator(x_ND.T @ x_ND / (2 * size))
        systems.append(Damped(operator, operator.norm_bound() / (condition - 1)))
    return systems


def _schulz(operators: list[Damped], rhs_BDK: Tensor, solver: Schulz) -> tuple[Tensor, float, int, tuple[str, ...]]:
    """Solutions; products in low precision and in all, of one block; what the solver had to say."""
    states = list(solver.init_all(operators))
    x_BDK = torch.stack([solver.compute(*pair)[0] for pair in zip(states, rhs_BDK, strict=True)])
    stats = states[0].stats
    assert stats.plan is not None
    return x_BDK, stats.plan["low_precision_products"], stats.products, stats.notes


def _cholesky(operators: list[Damped], rhs_BDK: Tensor, dtype: torch.dtype) -> Tensor:
    a_BDD = torch.stack([_matrix(operator).to(dtype) for operator in operators])
    factor_BDD, _ = torch.linalg.cholesky_ex(a_BDD)
    return torch.cholesky_solve(rhs_BDK.to(dtype), factor_BDD).double()


def _matrix(system: Damped) -> Tensor:
    assert isinstance(system.operator, DenseOperator)
    a_DD = system.operator.matrix_PP.clone()
    a_DD.diagonal().add_(system.damping)
    return a_DD


def _residual(operators: list[Damped], x_BDK: Tensor, rhs_BDK: Tensor) -> float:
    """The largest ``||A x - v|| / ||v||`` of a column, in float64."""
    residuals = [
        (operator.matmul(x_DK) - rhs_DK).norm(dim=0) / rhs_DK.norm(dim=0)
        for operator, x_DK, rhs_DK in zip(operators, x_BDK, rhs_BDK, strict=True)
    ]
    return float(torch.stack(residuals).max())


def _rate(precision: str, size: int, device: torch.device) -> float:
    """Operations a second of one large product, the best of some."""
    dtype = getattr(torch, "float32" if precision == "tfloat32" else precision)
    a_DD = torch.randn(size, size, device=device).to(dtype)
    with _tensor_cores(precision == "tfloat32"):
        _, seconds = _best(lambda: a_DD @ a_DD, device)
    return 2.0 * size**3 / seconds


@contextmanager
def _tensor_cores(allowed: bool) -> Iterator[None]:
    """Whether float32 products on CUDA round their factors to 11 bits (TF32)."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _best(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """The result, and the seconds of the fastest of some runs after one to warm up."""
    result = work()
    return result, max(min(timed(work, device)[1] for _ in range(REPEATS)), 1e-9)


def _gauss_newton(folder: Path, sizes: Sizes, device: torch.device) -> Table:
    """On cached rows whose outer products sum to it: two passes over them, which is what memory allows."""
    found = cell(folder / "gauss-newton.json", lambda: _gauss_newton_cell(sizes, device))
    result = table("Gauss-Newton product on cached rows", "N", "P", "vectors", "seconds", "GB/s", "a copy, GB/s")
    for columns, seconds in found["seconds"].items():
        rate = 2 * found["bytes"] / seconds / 1e9
        copied = 2 * found["bytes"] / found["copy_seconds"] / 1e9
        result.add_row(*map(str, sizes.rows), columns, f"{seconds:.3g}", f"{rate:.3g}", f"{copied:.3g}")
    result.caption = seen_on([found])
    return result


def _gauss_newton_cell(sizes: Sizes, device: torch.device) -> Cell:
    rows_NP = torch.randn(*sizes.rows, device=device)
    operator = RowsOperator([rows_NP])
    vectors = {k: torch.randn(sizes.rows[1], k, device=device) for k in (1, 16)}
    return {
        "bytes": rows_NP.numel() * 4,
        "copy_seconds": _best(rows_NP.clone, device)[1],
        "seconds": {str(k): _best(partial(operator.matmul, x_PK), device)[1] for k, x_PK in vectors.items()},
    }
