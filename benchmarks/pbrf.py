"""How well every method's scores predict the proximal Bregman response of three small models.

A method is a curvature and a solver, one line of :data:`METHODS`; all have one and the same lambda, the check's. A
model is a cell, and within it what was optimised is kept row by row: that is what takes the time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Generator, Tensor

from ascribe.sources.checkpoints import BlockShape
from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.pbrf_models import FULL, QUICK, Problem, problems
from worker.curvature.block import CurvatureBlock, CurvatureKind, build_block
from worker.curvature.ekfac import ekfac
from worker.curvature.kfac import kfac
from worker.eigen_operators import EigenOperator
from worker.gradients.cotangents import OfSampledLabel
from worker.gradients.factors import FactorSums
from worker.operators import Damped, RowsOperator
from worker.pbrf.agreement import Agreement, agreement, mean_and_minimum
from worker.pbrf.check import Pbrf, RowResponse
from worker.pbrf.curvature import gauss_newton_rows, gradient_rows, smaller_form
from worker.solvers.base import Solver
from worker.solvers.cg import Cg
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.eigenbasis import Eigenbasis
from worker.solvers.identity import Identity
from worker.solvers.lissa import Lissa
from worker.solvers.solve import solve
from worker.spectrum import largest_eigenvalue


@dataclass(frozen=True, slots=True)
class Prepared:
    """What methods work from: gradients of the loss, rows of the Gauss-Newton Hessian, EK-FAC, and one lambda."""

    blocks: list[BlockShape]
    grad_NP: Tensor
    grad_QP: Tensor
    gauss_newton: RowsOperator
    ekfac: list[EigenOperator]
    damping: float

    def columns(self) -> Iterator[tuple[BlockShape, slice]]:
        offset = 0
        for block in self.blocks:
            yield block, slice(offset, offset + block.size)
            offset += block.size


Piece = tuple[slice, CurvatureBlock]
Curvature = Callable[[Prepared], Iterator[Piece]]


def gauss_newton(prepared: Prepared) -> Iterator[Piece]:
    """All parameters as one block."""
    rows = prepared.gauss_newton
    yield slice(0, rows.size), CurvatureBlock("all", rows, 1, rows.size, 1.0)


def gauss_newton_by_block(prepared: Prepared) -> Iterator[Piece]:
    """The blocks on the diagonal, one a parameter tensor."""
    for block, columns in prepared.columns():
        rows = RowsOperator([chunk[:, columns] for chunk in prepared.gauss_newton.chunks])
        yield columns, CurvatureBlock(block.name, rows, 1, rows.size, 1.0)


def ekfac_by_block(prepared: Prepared) -> Iterator[Piece]:
    """EK-FAC, one a parameter tensor."""
    for (block, columns), operator in zip(prepared.columns(), prepared.ekfac, strict=True):
        yield columns, CurvatureBlock(block.name, operator, 1, operator.size, 1.0)


def by_block(kind: CurvatureKind) -> Curvature:
    """A curvature of the loss's gradients, one a parameter tensor."""

    def build(prepared: Prepared) -> Iterator[Piece]:
        for block, columns in prepared.columns():
            chunks = [prepared.grad_NP[:, columns]]
            yield columns, build_block(block.name, kind, chunks, block.rank, block.long_side)

    return build


METHODS: dict[str, tuple[Curvature, Solver[Any]]] = {
    "gauss_newton + cholesky": (gauss_newton, Cholesky()),
    "gauss_newton + cg": (gauss_newton, Cg(tolerance=1e-8)),
    "gauss_newton + lissa": (gauss_newton, Lissa(max_steps=20_000)),
    "gauss_newton by block + cholesky": (gauss_newton_by_block, Cholesky()),
    "ekfac + eigenbasis": (ekfac_by_block, Eigenbasis()),
    "empirical_fisher + cholesky": (by_block("empirical_fisher"), Cholesky()),
    "gfim + cholesky": (by_block("gfim"), Cholesky()),
    "gfim_unnormalized + cholesky": (by_block("gfim_unnormalized"), Cholesky()),
    "empirical_fisher + datainf": (by_block("empirical_fisher"), DataInf()),
    "none + identity": (by_block("none"), Identity()),
}


def scores(method: tuple[Curvature, Solver[Any]], prepared: Prepared, rows: list[int]) -> Tensor:
    """``score_ZQ`` of the train rows ``rows``, float64, as the service computes them."""
    curvature, solver = method
    score_ZQ = torch.zeros(len(rows), len(prepared.grad_QP), dtype=torch.float64)
    for columns, block in curvature(prepared):
        damped = Damped(block.operator, 0.0 if isinstance(solver, Identity) else prepared.damping)
        solution = solve(damped, block.to_rhs(prepared.grad_QP[:, columns]), solver)
        score_ZQ += prepared.grad_NP[rows, columns].double() @ block.from_rhs(solution.x_PK).T
    return score_ZQ


def study(folder: Path, *, quick: bool = False) -> Iterator[Table]:
    """Every method on every model: correlations with the responses over the train rows, for each validation row."""
    cells = {
        name: cell(folder / f"{slug(name)}.json", partial(_measure, make, folder / "responses"))
        for name, make in problems(QUICK if quick else FULL, folder, quick=quick).items()
    }
    result = table(
        "Scores beside proximal Bregman responses: over the validation rows the mean correlation, and the lowest",
        "model", "N", "P", "rows checked", "Q", "damping", "method", "Spearman", "lowest", "all pairs", "Pearson",
        "lowest", "CPU seconds",
    )  # fmt: skip
    for name, each in cells.items():
        for method, found in each["methods"].items():
            keys = ("spearman", "lowest_spearman", "spearman_of_all", "pearson", "lowest_pearson")
            figures = (f"{found[key]:.3f}" for key in keys)
            result.add_row(name, *each["sizes"], method, *figures, f"{found['seconds']:.2g}")
    result.caption = seen_on(cells.values())
    yield result


def _measure(make: Callable[[], Problem], folder: Path) -> Cell:
    problem = make()
    model, blocks = problem.model, problem.blocks
    gauss_newton_NP = gauss_newton_rows(model, blocks, problem.train)
    damping = problem.relative * largest_eigenvalue(gauss_newton_NP, Generator().manual_seed(0))
    prepared = Prepared(
        blocks,
        gradient_rows(model, blocks, problem.train),
        gradient_rows(model, blocks, problem.validation),
        gauss_newton_NP,
        _ekfac(problem),
        damping,
    )
    responses = _responses(problem, prepared, folder)
    trusted = [response for response in responses if response.trusted]
    rows = [response.row for response in trusted]
    differences_ZQ = torch.stack([response.difference_Q for response in trusted])
    methods = {}
    for name, method in METHODS.items():
        started = time.process_time()
        score_ZQ = scores(method, prepared, rows)
        seconds = time.process_time() - started
        methods[name] = _correlations(agreement(differences_ZQ, {name: score_ZQ})[name]) | {"seconds": seconds}
    sizes = (
        str(len(prepared.grad_NP)), str(gauss_newton_NP.size), f"{len(rows)} of {len(responses)}",
        str(len(prepared.grad_QP)), f"{problem.relative:g} of the largest, {damping:.2g}",
    )  # fmt: skip
    return {"sizes": sizes, "methods": methods}


def _ekfac(problem: Problem) -> list[EigenOperator]:
    """As the service builds it, with labels that the model draws."""
    of = OfSampledLabel(0)
    sums = FactorSums(problem.model, problem.blocks, [of])
    for batch in problem.train:
        sums.add(batch)
    sampled_NP = gradient_rows(problem.model, problem.blocks, problem.train, of)
    bases = [kfac(block.name, found) for block, found in zip(problem.blocks, sums.factors(), strict=True)]
    chunks = torch.split(sampled_NP, [block.size for block in problem.blocks], dim=1)
    return [ekfac(basis, [chunk], len(sampled_NP)) for basis, chunk in zip(bases, chunks, strict=True)]


def _correlations(found: Agreement) -> dict[str, float]:
    spearman, lowest_spearman = mean_and_minimum(found.spearman_Q)
    pearson, lowest_pearson = mean_and_minimum(found.pearson_Q)
    return {
        "spearman": spearman, "lowest_spearman": lowest_spearman, "spearman_of_all": found.spearman,
        "pearson": pearson, "lowest_pearson": lowest_pearson,
    }  # fmt: skip


def _responses(problem: Problem, prepared: Prepared, folder: Path) -> list[RowResponse]:
    """Of the chosen rows; those that an earlier run optimised are read."""
    check = Pbrf(
        problem.model, problem.blocks, problem.train, problem.validation,
        damping=prepared.damping, curvature=smaller_form(prepared.gauss_newton),
    )  # fmt: skip
    generator = Generator().manual_seed(0)
    rows = sorted(torch.randperm(check.rows, generator=generator)[: problem.chosen].tolist())
    folder = folder / f"{slug(problem.name)}-{_key(prepared)}"
    return [_response(cell(folder / f"row-{row}.json", partial(_respond, check, row))) for row in rows]


def _respond(check: Pbrf, row: int) -> Cell:
    response = check.respond(row)
    return asdict(response) | {"difference_Q": response.difference_Q.tolist()}


def _response(kept: Cell) -> RowResponse:
    facts = {name: value for name, value in kept.items() if name != "machine"}
    return RowResponse(**facts | {"difference_Q": torch.tensor(kept["difference_Q"], dtype=torch.float64)})


def _key(prepared: Prepared) -> str:
    """Of the model, the rows and lambda, through the gradients that they give."""
    digest = hashlib.sha256(prepared.damping.hex().encode())
    for grad in (prepared.grad_NP, prepared.grad_QP):
        digest.update(grad.numpy().tobytes())
    return digest.hexdigest()[:16]
