"""LiSSA with nothing set by hand on several models and data sets, beside exact Gauss-Newton scores.

Also what its plan rests on, the spectrum, beside the dense truth; and whether K-FAC or EK-FAC would make the matrix any
better conditioned, with the steps that ASTRA and LiSSA then plan.
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
from torch import Generator, Tensor

from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.detection_data import DATASETS, Dataset, has_data
from benchmarks.pairs import Pair, Sample, make_pair
from benchmarks.systems import span
from worker.curvature.ekfac import ekfac
from worker.curvature.kfac import kfac
from worker.eigen_operators import PreconditionedOperator
from worker.gradients.cotangents import OfSampledLabel
from worker.gradients.factors import FactorSums
from worker.operators import Damped, RowsOperator
from worker.pbrf.agreement import agreement, mean_and_minimum
from worker.pbrf.curvature import gauss_newton_rows, gradient_rows
from worker.solvers.astra import Astra
from worker.solvers.cholesky import Cholesky
from worker.solvers.lissa import Lissa
from worker.solvers.solve import solve
from worker.solvers.woodbury import dense_system
from worker.spectrum import measure

RELATIVE = 0.005
"""Damping, of the largest eigenvalue: the product's default for LiSSA."""
DAMPINGS = (0.1, 0.01, 0.005, 0.001)
_UNBOUNDED = 10**9
"""Steps: what is planned is shown, not run."""


@dataclass(frozen=True, slots=True)
class Sizes:
    train: int = 300
    queries: int = 8
    rank: int = 4
    seeds: tuple[int, ...] = (0, 1)
    spectra: int = 10
    """Seeds of the spectrum's estimates."""
    synthetic: tuple[int, int] = (1000, 500)
    dampings: tuple[float, ...] = DAMPINGS


FULL = Sizes()
QUICK = Sizes(train=12, queries=3, rank=1, seeds=(0,), spectra=2, synthetic=(40, 20), dampings=DAMPINGS[:1])


@dataclass(frozen=True, slots=True)
class Problem:
    """The Gauss-Newton Hessian by its rows, gradients of the train rows' loss, and right-hand sides."""

    rows: RowsOperator
    grad_NP: Tensor
    rhs_PK: Tensor


@dataclass(frozen=True, slots=True)
class Source:
    """A model and its data; ``kind`` is one of :data:`benchmarks.pairs.TARGETS`."""

    kind: str
    dataset: Dataset | None = None
    head: bool = False
    conditions: bool = False
    """Whether K-FAC and EK-FAC are tried on it."""

    @property
    def name(self) -> str:
        model = self.kind if self.kind == "MiniLM" else f"tiny {self.kind}"
        data = "demo" if self.dataset is None else self.dataset.name
        return f"{model}{' and head' if self.head else ''}, {data}"

    def pair(self, sizes: Sizes) -> Pair:
        sample = Sample.of(self.dataset, sizes.train, sizes.queries)
        return make_pair(self.kind, sample, rank=sizes.rank, head=self.head)


SOURCES = (
    Source("MiniLM", conditions=True),
    *(Source("MiniLM", dataset, conditions=dataset is DATASETS[0]) for dataset in DATASETS),
    Source("bert", conditions=True),
    Source("distilbert", head=True),
    Source("electra"),
    Source("roberta"),
)


def study(folder: Path, *, quick: bool = False) -> Iterator[Table]:
    """What LiSSA did, what its plan rested on, and what a preconditioner does. Every pair is a cell."""
    sizes = QUICK if quick else FULL
    sources = [source for source in SOURCES if source.dataset is None or has_data()]
    if len(sources) < len(SOURCES):
        print("SST-2 and CoLA are left out: no benchmark data is at hand.")
    cells = {
        source.name: cell(folder / f"{slug(source.name)}.json", partial(_model, source, sizes)) for source in sources
    }
    for name, draw in SYNTHETIC.items():
        cells[name] = cell(folder / f"{slug(name)}.json", partial(_examine, _synthetic(draw, sizes), sizes))
    yield _solves_table(cells)
    yield _spectrum_table(cells, sizes)
    yield _conditions_table({name: each for name, each in cells.items() if "conditions" in each})


def _wishart(rows: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(rows, size, generator=generator)


def _heavy_tail(rows: int, size: int, generator: Generator) -> Tensor:
    """Variances falling like 1 / i, and lengths of rows log-normal over a factor of hundreds."""
    length_N1 = (2 * torch.randn(rows, 1, generator=generator)).exp()
    return _wishart(rows, size, generator) * torch.arange(1, size + 1).rsqrt() * length_N1


def _power_law(rows: int, size: int, generator: Generator) -> Tensor:
    return _wishart(rows, size, generator) / torch.arange(1, size + 1)


SYNTHETIC: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "normal rows": _wishart,
    "heavy tail": _heavy_tail,
    "power law": _power_law,
}


def _synthetic(draw: Callable[[int, int, Generator], Tensor], sizes: Sizes) -> Problem:
    generator = Generator().manual_seed(0)
    grad_NP = draw(*sizes.synthetic, generator)
    rhs_PK = torch.randn(sizes.synthetic[1], sizes.queries, generator=generator, dtype=torch.float64)
    return Problem(RowsOperator([grad_NP]), grad_NP, rhs_PK)


def _model(source: Source, sizes: Sizes) -> Cell:
    pair = source.pair(sizes)
    rows = gauss_newton_rows(pair.model, pair.blocks, pair.train)
    grad_NP, grad_QP = (gradient_rows(pair.model, pair.blocks, part) for part in (pair.train, pair.validation))
    found = _examine(Problem(rows, grad_NP, grad_QP.T.double()), sizes)
    if source.conditions:
        found["conditions"] = _conditions(pair, rows, found["largest"], sizes)
    return found


def _examine(problem: Problem, sizes: Sizes) -> Cell:
    """LiSSA for some seeds beside Cholesky, and the spectrum's estimates beside eigenvalues."""
    system = dense_system(Damped(problem.rows, 1.0))
    largest = float(torch.linalg.eigvalsh(system.operator.matmul(torch.eye(system.size, dtype=torch.float64)))[-1])
    largest /= system.damping
    damped = Damped(problem.rows, RELATIVE * largest)
    exact = solve(damped, problem.rhs_PK, Cholesky())
    exact_NK = problem.grad_NP.double() @ exact.x_PK
    return {
        "rows": problem.rows.count,
        "size": problem.rows.size,
        "trace": problem.rows.trace(),
        "largest": largest,
        "exact_residual": float(exact.relative_residual_K.max()),
        "runs": [_run(damped, problem, exact_NK, seed) for seed in sizes.seeds],
        "spectra": [_spectrum(problem.rows, seed) for seed in range(sizes.spectra)],
    }


def _run(damped: Damped, problem: Problem, exact_NK: Tensor, seed: int) -> dict[str, Any]:
    started = time.process_time()
    solution = solve(damped, problem.rhs_PK, Lissa(seed=seed))
    seconds = time.process_time() - started
    plan = solution.stats.plan
    assert plan is not None
    score_NK = problem.grad_NP.double() @ solution.x_PK
    mean_spearman, lowest_spearman = mean_and_minimum(agreement(exact_NK, {"lissa": score_NK})["lissa"].spearman_Q)
    return {
        "status": solution.status.value,
        "steps": solution.stats.iterations,
        "planned": plan["steps"],
        "batch": plan["batch_size"],
        "products": solution.stats.products,
        "predicted": plan["predicted_residual"],
        "measured": float(solution.relative_residual_K.max()),
        "spearman": mean_spearman,
        "lowest_spearman": lowest_spearman,
        "seconds": seconds,
    }


def _spectrum(rows: RowsOperator, seed: int) -> dict[str, float]:
    seen = measure(rows, Generator().manual_seed(seed))
    return {"trace": seen.trace, "error": seen.trace_standard_error, "largest": seen.largest, "products": seen.products}


def _conditions(pair: Pair, rows: RowsOperator, largest: float, sizes: Sizes) -> list[dict[str, Any]]:
    """At every damping the conditions that Lanczos finds, and the steps planned on them."""
    of = OfSampledLabel(0)
    sums = FactorSums(pair.model, pair.blocks, [of])
    for batch in pair.train:
        sums.add(batch)
    grad_NP = gradient_rows(pair.model, pair.blocks, pair.train, of)
    parts = torch.split(grad_NP, [block.size for block in pair.blocks], dim=1)
    kronecker = [kfac(block.name, factors) for block, factors in zip(pair.blocks, sums.factors(), strict=True)]
    corrected = [ekfac(basis, [part_NP], pair.rows) for basis, part_NP in zip(kronecker, parts, strict=True)]
    found = []
    for relative in sizes.dampings:
        damping = relative * largest
        kfac_plan, ekfac_plan = (
            Astra(max_steps=_UNBOUNDED).init(Damped(PreconditionedOperator(rows, blocks), damping)).plan
            for blocks in (kronecker, corrected)
        )
        lissa_plan = Lissa(max_steps=_UNBOUNDED).init(Damped(rows, damping)).plan
        found.append({
            "relative": relative, "plain": 1 + largest / damping, "kfac": kfac_plan.condition,
            "ekfac": ekfac_plan.condition, "lissa_steps": lissa_plan.steps, "astra_steps": ekfac_plan.steps,
        })  # fmt: skip
    return found


def _solves_table(cells: dict[str, Cell]) -> Table:
    residual = max(each["exact_residual"] for each in cells.values())
    result = table(
        f"LiSSA, nothing set by hand, damping {RELATIVE:g} of the largest eigenvalue of the Gauss-Newton Hessian; "
        f"exact scores by Cholesky, whose residual is at most {residual:.0e}",
        "pair", "rows", "P", "seed", "status", "batch", "steps", "planned", "products", "residual predicted",
        "measured", "measured / predicted", "Spearman with exact scores", "lowest of a query",
        "CPU seconds",
    )  # fmt: skip
    for name, each in cells.items():
        for seed, run in enumerate(each["runs"]):
            result.add_row(
                name, str(each["rows"]), str(each["size"]), str(seed), run["status"], str(run["batch"]),
                str(run["steps"]), str(run["planned"]), str(run["products"]), f"{run['predicted']:.4f}",
                f"{run['measured']:.4f}", f"{run['measured'] / run['predicted']:.2f}", f"{run['spearman']:.4f}",
                f"{run['lowest_spearman']:.4f}", f"{run['seconds']:.3g}",
            )  # fmt: skip
    result.caption = seen_on(cells.values())
    return result


def _spectrum_table(cells: dict[str, Cell], sizes: Sizes) -> Table:
    result = table(
        f"The spectrum's estimates beside all eigenvalues: the first of {sizes.spectra} seeds, and how all of them did",
        "pair", "trace, exact", "estimate, with its standard error", "within two standard errors", "largest, exact",
        "estimate", "worst relative error", "products",
    )  # fmt: skip
    for name, each in cells.items():
        seen = each["spectra"]
        # A small matrix is taken whole: its trace is exact but for rounding, with an error of zero.
        within = sum(abs(one["trace"] - each["trace"]) <= max(2 * one["error"], 1e-9 * each["trace"]) for one in seen)
        worst = max(abs(one["largest"] / each["largest"] - 1) for one in seen)
        result.add_row(
            name, f"{each['trace']:.4g}", f"{seen[0]['trace']:.4g} ± {seen[0]['error']:.2g}",
            f"{within} of {len(seen)}",
            f"{each['largest']:.5g}", f"{seen[0]['largest']:.5g}", f"{worst:.1e}",
            span([one["products"] for one in seen], "d"),
        )  # fmt: skip
    result.caption = seen_on(cells.values())
    return result


def _conditions_table(cells: dict[str, Cell]) -> Table:
    result = table(
        "Condition of the damped Gauss-Newton Hessian, plain and preconditioned, and the steps planned on it",
        "pair", "damping, of the largest", "plain", "with K-FAC", "with EK-FAC", "LiSSA's steps", "ASTRA's steps",
    )  # fmt: skip
    for name, each in cells.items():
        for line in each["conditions"]:
            conditions = (f"{line[key]:.4g}" for key in ("plain", "kfac", "ekfac"))
            steps = (str(line[key]) for key in ("lissa_steps", "astra_steps"))
            result.add_row(name, f"{line['relative']:g}", *conditions, *steps)
    result.caption = seen_on(cells.values())
    return result
