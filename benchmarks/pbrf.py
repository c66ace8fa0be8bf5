"""How well every method's scores predict the proximal Bregman response of three small models.

A method is a curvature and a solver, one line of :data:`METHODS`; all have one and the same lambda, the check's. A
model is a cell, and within it what was optimised is kept row by row: that is what takes the time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.subject import DEMO, Subject, load
from examples.demo.finetune import ADAPTER, BASE, ROWS, prepare
from worker.curvature.block import CurvatureBlock, CurvatureKind, build_block
from worker.data import Batch, make_batches
from worker.operators import Damped, RowsOperator
from worker.pbrf.agreement import Agreement, agreement, mean_and_minimum
from worker.pbrf.check import Pbrf, RowResponse
from worker.pbrf.curvature import gauss_newton_rows, gradient_rows, smaller_form
from worker.solvers.base import Solver
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.identity import Identity
from worker.solvers.lissa import Lissa
from worker.solvers.solve import solve
from worker.spectrum import largest_eigenvalue


@dataclass(frozen=True, slots=True)
class Sizes:
    digits: int = 500
    steps: int = 150
    """Of the digits' training."""
    chosen: int = 40
    """Train rows to check: of the digits, and of MiniLM below."""
    sentences: int = 40
    queries: int = 16
    chosen_sentences: int = 8
    dampings: tuple[float, ...] = (0.005, 0.001)
    """Of the MLP, relative to the largest eigenvalue; the others have the first."""


FULL = Sizes()
QUICK = Sizes(digits=20, steps=20, chosen=3, sentences=4, queries=2, chosen_sentences=3, dampings=(0.1,))


@dataclass(frozen=True, slots=True)
class Problem:
    """A trained model and its rows; lambda is ``relative`` times the largest eigenvalue of its Gauss-Newton Hessian."""

    name: str
    model: nn.Module
    blocks: list[BlockShape]
    train: list[Batch]
    validation: list[Batch]
    relative: float
    chosen: int
    """Train rows to check, drawn."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What methods work from: gradients of the loss, rows of the Gauss-Newton Hessian, and one lambda."""

    blocks: list[BlockShape]
    grad_NP: Tensor
    grad_QP: Tensor
    gauss_newton: RowsOperator
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


def by_block(kind: CurvatureKind) -> Curvature:
    """A curvature of the loss's gradients, one a parameter tensor."""

    def build(prepared: Prepared) -> Iterator[Piece]:
        for block, columns in prepared.columns():
            chunks = [prepared.grad_NP[:, columns]]
            yield columns, build_block(block.name, kind, chunks, block.rank, block.long_side)

    return build


METHODS: dict[str, tuple[Curvature, Solver[Any]]] = {
    "gauss_newton + cholesky": (gauss_newton, Cholesky()),
    "gauss_newton + lissa": (gauss_newton, Lissa(max_steps=20_000)),
    "gauss_newton by block + cholesky": (gauss_newton_by_block, Cholesky()),
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
        for name, make in _problems(QUICK if quick else FULL, folder, quick=quick).items()
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


def _problems(sizes: Sizes, folder: Path, *, quick: bool) -> dict[str, Callable[[], Problem]]:
    mlps = {
        name: partial(_digits, name, (64, 16, 10), sizes, relative)
        for name, relative in ((f"MLP {relative:g}", relative) for relative in sizes.dampings)
    }
    return {
        "logistic": partial(_digits, "logistic", (64, 10), sizes, sizes.dampings[0]),
        **mlps,
        "MiniLM": partial(_language, sizes, folder, quick=quick),
    }


class _Classifier(nn.Module):
    """Called as a classifier of transformers is."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [layer for pair in pairwise(widths) for layer in (nn.Tanh(), nn.Linear(*pair))]
        self.net = nn.Sequential(*layers[1:])

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.net(pixels))


def _digits(name: str, widths: Sequence[int], sizes: Sizes, relative: float) -> Problem:
    """scikit-learn's 8 x 8 digits, a tenth of the train labels wrong; short training by Adam on all rows at once."""
    generator, rows = Generator().manual_seed(0), sizes.digits
    data = load_digits()
    order_N = torch.randperm(len(data.target), generator=generator)
    pixel_NF, label_N = torch.tensor(data.data)[order_N] / 16, torch.tensor(data.target)[order_N]
    wrong = torch.randperm(rows, generator=generator)[: rows // 10]
    label_N[wrong] = (label_N[wrong] + torch.randint(1, 10, wrong.shape, generator=generator)) % 10
    model = _Classifier(widths).double()
    for parameter in model.parameters():
        bound = parameter.shape[-1] ** -0.5
        parameter.data = (torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(sizes.steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixel_NF[:rows]).logits, label_N[:rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    train, validation = (
        [Batch(tuple(range(len(part))), {"pixels": pixel_NF[part]}, label_N[part])]
        for part in (torch.arange(rows), torch.arange(rows, rows + 50))
    )
    blocks = [BlockShape.of(parameter_name, tuple(value.shape)) for parameter_name, value in model.named_parameters()]
    return Problem(name, model, blocks, train, validation, relative, sizes.chosen)


def _language(sizes: Sizes, folder: Path, *, quick: bool) -> Problem:
    """The demo's model and adapter, on the first of its own train rows and others after them."""
    few = {"epochs": 1, "limit": 20} if quick else {}
    data_root = prepare(folder / "data" if quick else DEMO, **few, progress=False)
    subject = Subject(data_root, BASE, ADAPTER, f"{ROWS}/train.jsonl")
    spec = subject.spec(subject.sentences, subject.sentences)
    count = sizes.sentences + sizes.queries
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"limit": count})})
    inputs, loaded, settings = load(subject, spec, folder / "cache")
    train, validation = (
        make_batches(
            inputs.train, start, stop, loaded.tokenizer,
            max_length=128, token_budget=settings.token_budget, device="cpu",
        )
        for start, stop in ((0, sizes.sentences), (sizes.sentences, count))
    )  # fmt: skip
    blocks = list(inputs.checkpoint.blocks)
    return Problem("MiniLM", loaded.model, blocks, train, validation, sizes.dampings[0], sizes.chosen_sentences)
