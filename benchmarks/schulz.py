"""What Schulz's planned steps, measured ends and warm starts are worth, beside the published loop and Cholesky.

Made-up systems have their spectrum in [1 / condition, 1]: what the published start of 5e-5 needs hangs on the scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks import published
from benchmarks.cells import Cell, cell, seen_on, table
from benchmarks.pairs import Sample, make_pair
from benchmarks.schulz_warm import QUICK as QUICK_WARM
from benchmarks.schulz_warm import WARM, warm_starts
from benchmarks.systems import dense, make_system, residual_of, span, worst_column
from worker.curvature.block import CurvatureKind, build_block
from worker.operators import Damped
from worker.pbrf.curvature import gradient_rows
from worker.solvers.base import Solver
from worker.solvers.cholesky import Cholesky
from worker.solvers.schulz import Schulz
from worker.solvers.solve import solve

TOLERANCE = 1e-6
OURS: dict[str, Schulz] = {
    "ours, float64": Schulz(TOLERANCE, precision="float64"),
    "ours, auto": Schulz(TOLERANCE),
}
KINDS: tuple[CurvatureKind, ...] = ("gfim", "gfim_unnormalized")
ROUNDS = 3
_PUBLISHED_LIMIT = 60
"""Steps; at a condition of 1e6 it takes 39."""


@dataclass(frozen=True, slots=True)
class Sizes:
    size: int = 384
    blocks: int = 24
    conditions: tuple[float, ...] = (1e2, 1e4, 1e6)
    rows: int = 400
    rank: int = 8


FULL = Sizes()
QUICK = Sizes(size=16, blocks=2, conditions=(1e2,), rows=8, rank=1)


def study(folder: Path, *, quick: bool = False) -> Iterator[Table]:
    """Products; errors on the blocks of a fine-tuned model; seconds; warm starts."""
    sizes = QUICK if quick else FULL
    yield _products_table([
        cell(folder / f"products-{condition:g}.json", partial(_products, sizes.size, condition))
        for condition in sizes.conditions
    ])  # fmt: skip
    yield _real_table(cell(folder / "real.json", partial(_real, sizes)), sizes)
    yield _speed_table(cell(folder / "speed.json", partial(_speed, sizes)), sizes)
    yield from warm_starts(folder, QUICK_WARM if quick else WARM, OURS)


def _products(size: int, condition: float) -> Cell:
    system = make_system(size, condition)
    a_DD = dense(system)
    methods: dict[str, dict[str, Any]] = {}
    for name, solver in OURS.items():
        state = solver.init(system)
        assert state.stats.plan is not None
        methods[name] = {
            "planned": state.stats.plan["planned_products"], "products": state.stats.products,
            "low": state.stats.plan["low_precision_products"],
            "residual": float(torch.linalg.matrix_norm(residual_of(a_DD, state.inverse), ord=2)),
        }  # fmt: skip
    steps = _published_steps(a_DD, lambda left_DD: float(torch.linalg.matrix_norm(left_DD, ord=2)))
    residual = float(torch.linalg.matrix_norm(residual_of(a_DD, published.schulz(a_DD, steps)), ord=2))
    methods["published, float64"] = {"planned": "-", "products": 2 * steps, "low": 0, "residual": residual}
    return {"condition": condition, "methods": methods}


def _products_table(cells: list[Cell]) -> Table:
    result = table(
        f"Schulz until the spectral norm of I - A X is at most {TOLERANCE:g}: products of two matrices",
        "condition, at most", "method", "planned", "used, with the one that measures", "of them in float32",
        "spectral norm of I - A X",
    )  # fmt: skip
    for each in cells:
        for name, found in each["methods"].items():
            numbers = (str(found[key]) for key in ("planned", "products", "low"))
            result.add_row(f"{each['condition']:g}", name, *numbers, f"{found['residual']:.1e}")
    result.caption = seen_on(cells)
    return result


def _real(sizes: Sizes) -> Cell:
    """``A^-1`` of every block by every method, beside that of LU in float64."""
    pair = make_pair("MiniLM", Sample.of(None, sizes.rows, 1), rank=sizes.rank)
    blocks = pair.blocks[: sizes.blocks]
    grad_NP = gradient_rows(pair.model, blocks, pair.train)
    parts = torch.split(grad_NP, [block.size for block in blocks], dim=1)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for kind in KINDS:
        methods: dict[str, list[dict[str, Any]]] = {}
        for shape, part_NP in zip(blocks, parts, strict=True):
            block = build_block(shape.name, kind, [part_NP], shape.rank, shape.long_side)
            for name, outcome in _errors(Damped(block.operator, 0.1 * block.mean_squared_entry)).items():
                methods.setdefault(name, []).append(outcome)
        found[kind] = methods
    return {"rows": pair.rows, "blocks": len(blocks), "kinds": found}


def _errors(system: Damped) -> dict[str, dict[str, Any]]:
    identity_DD = torch.eye(system.size, dtype=torch.float64)
    a_DD = system.matmul(identity_DD)
    exact_DD = torch.linalg.inv(a_DD)
    solvers: dict[str, Solver[Any]] = {
        **OURS,
        "Cholesky": Cholesky(),
        "published, 30 steps, as released": Schulz(start="published", iterations=published.SCHULZ_STEPS),
    }
    inverses: dict[str, tuple[Tensor, int | str]] = {}
    for name, solver in solvers.items():
        solution = solve(system, identity_DD, solver)
        inverses[name] = solution.x_PK, solution.stats.products
    inverses["published, 30 steps"] = published.schulz(a_DD.float()).double(), 2 * published.SCHULZ_STEPS
    return {
        name: {
            "error": float((x_DD - exact_DD).norm() / exact_DD.norm()),
            "residual": float(residual_of(a_DD, x_DD).norm(dim=0).max()),
            "products": products,
            "condition": system.condition_bound(),
            "damping": system.damping,
        }
        for name, (x_DD, products) in inverses.items()
    }


def _real_table(found: Cell, sizes: Sizes) -> Table:
    result = table(
        f"{found['blocks']} real blocks: MiniLM with LoRA of rank {sizes.rank}, {found['rows']} rows of the demo's "
        "corpus, damping 0.1 relative; x = A^-1 e of every unit vector, refined where the solver does",
        "curvature", "damping", "condition, at most", "method", "products",
        "worst relative error of A^-1", "worst column's residual",
    )  # fmt: skip
    for kind, methods in found["kinds"].items():
        for name, blocks in methods.items():
            spans = (
                span([block[key] for block in blocks], form) for key, form in (("damping", ".1e"), ("condition", ".0f"))
            )
            worst = (f"{max(block[key] for block in blocks):.1e}" for key in ("error", "residual"))
            result.add_row(kind, *spans, name, span([block["products"] for block in blocks], "d"), *worst)
    result.caption = seen_on([found])
    return result


def _speed(sizes: Sizes) -> Cell:
    """All blocks' inverses from nothing; methods take turns, and the best of some rounds counts."""
    systems = [
        make_system(sizes.size, 500 * 8 ** (seed / max(1, sizes.blocks - 1)), seed) for seed in range(sizes.blocks)
    ]
    matrices = [dense(system) for system in systems]
    steps = [_published_steps(a_DD, worst_column) for a_DD in matrices]
    methods: dict[str, Callable[[], list[tuple[Tensor, int]]]] = {
        "published, float64, to the same residual": lambda: [
            (published.schulz(a_DD, count), 2 * count) for a_DD, count in zip(matrices, steps, strict=True)
        ],
        **{name: partial(_ours, solver, systems) for name, solver in OURS.items()},
        "Cholesky, float64": lambda: [(torch.cholesky_inverse(torch.linalg.cholesky(a_DD)), 0) for a_DD in matrices],
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    outcomes: dict[str, list[tuple[Tensor, int]]] = {}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            started = time.process_time()
            outcomes[name] = method()
            seconds[name].append(time.process_time() - started)
    return {
        "methods": {
            name: {
                "seconds": max(min(seconds[name]), 1e-9),
                "products": [products for _, products in inverses],
                "residual": max(
                    worst_column(residual_of(a_DD, x_DD)) for a_DD, (x_DD, _) in zip(matrices, inverses, strict=True)
                ),
            }
            for name, inverses in outcomes.items()
        }
    }


def _ours(solver: Schulz, systems: list[Damped]) -> list[tuple[Tensor, int]]:
    return [(state.inverse, state.stats.products) for state in solver.init_all(systems)]


def _speed_table(found: Cell, sizes: Sizes) -> Table:
    methods = found["methods"]
    slowest = methods["published, float64, to the same residual"]["seconds"]
    result = table(
        f"{sizes.blocks} inverses of {sizes.size} x {sizes.size}, conditions of at most 500 to 4000, every column's "
        f"residual within {TOLERANCE:g}; best of {ROUNDS} rounds",
        "method", "products a block", "worst column's residual", "CPU seconds", "published / it",
    )  # fmt: skip
    for name, each in methods.items():
        products = span(each["products"], "d") if any(each["products"]) else "-"
        result.add_row(
            name, products, f"{each['residual']:.1e}", f"{each['seconds']:.3g}", f"{slowest / each['seconds']:.3g}"
        )
    result.caption = seen_on([found])
    return result


def _published_steps(a_DD: Tensor, measure: Callable[[Tensor], float]) -> int:
    """How many steps the published loop takes to the tolerance in float64, where it can get there."""
    x_DD = published.SCHULZ_START * torch.eye(len(a_DD), dtype=torch.float64)
    for step in range(_PUBLISHED_LIMIT):
        left_DD = residual_of(a_DD, x_DD)
        if measure(left_DD) <= TOLERANCE:
            return step
        x_DD = x_DD + x_DD @ left_DD
    raise AssertionError("the published loop reaches the tolerance at these conditions")
