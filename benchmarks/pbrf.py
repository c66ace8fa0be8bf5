"""How well every method's scores predict the proximal Bregman response of three small models.

    python -m benchmarks.pbrf [--quick]

A method is a curvature and a solver, one line of :data:`METHODS`; all have one and the same lambda, the check's. What
was optimised is kept row by row below the data root's ``bench/pbrf``: a run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from benchmarks.result import Row, machine, save, show
from benchmarks.subject import FOLDER, FULL, QUICK, Sizes, Subject, demo_subject, load
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

OUTPUT = Path(".ascribe/bench")
GOAL = 0.9


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


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """Mean Spearman correlation over the validation rows, for every method on every model."""
    folder = subject.data_root / FOLDER / "pbrf"
    for problem in _problems(subject, sizes):
        yield from _measure(problem, folder)


def _measure(problem: Problem, folder: Path) -> Iterator[Row]:
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
    sizes = (
        f"N = {len(prepared.grad_NP)}, P = {gauss_newton_NP.size}, Z = {len(rows)} of {len(responses)}, "
        f"Q = {len(prepared.grad_QP)}, lambda = {problem.relative:g} x largest = {damping:.2g}"
    )
    for name, method in METHODS.items():
        started = time.perf_counter()
        found = agreement(differences_ZQ, {name: scores(method, prepared, rows)})[name]
        yield _row(problem, name, found, time.perf_counter() - started, sizes)


def _row(problem: Problem, name: str, found: Agreement, seconds: float, sizes: str) -> Row:
    mean, lowest = mean_and_minimum(found.spearman_Q)
    pearson, lowest_pearson = mean_and_minimum(found.pearson_Q)
    return Row(
        f"PBRF, {problem.name}: {name}",
        mean,
        "Spearman",
        f"lowest {lowest:.3f}, all {found.spearman:.3f}, {seconds:.1f} s",
        f"Pearson {pearson:.3f}, lowest {lowest_pearson:.3f}",
        sizes,
        goal=GOAL if name.startswith("gauss_newton +") else None,
    )


def _responses(problem: Problem, prepared: Prepared, folder: Path) -> list[RowResponse]:
    """Of the chosen rows; those that an earlier run optimised are read."""
    check = Pbrf(
        problem.model, problem.blocks, problem.train, problem.validation,
        damping=prepared.damping, curvature=smaller_form(prepared.gauss_newton),
    )  # fmt: skip
    generator = Generator().manual_seed(0)
    rows = sorted(torch.randperm(check.rows, generator=generator)[: problem.chosen].tolist())
    path = folder / f"{problem.name.replace(' ', '-')}-{_key(prepared)}.json"
    kept: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    for row in rows:
        if str(row) not in kept:
            response = check.respond(row)
            kept[str(row)] = asdict(response) | {"difference_Q": response.difference_Q.tolist()}
            _write(path, json.dumps(kept))
    return [_response(kept[str(row)]) for row in rows]


def _response(document: dict[str, Any]) -> RowResponse:
    difference_Q = torch.tensor(document["difference_Q"], dtype=torch.float64)
    return RowResponse(**(document | {"difference_Q": difference_Q}))


def _key(prepared: Prepared) -> str:
    """Of the model, the rows and lambda, through the gradients that they give."""
    digest = hashlib.sha256(prepared.damping.hex().encode())
    for grad in (prepared.grad_NP, prepared.grad_QP):
        digest.update(grad.numpy().tobytes())
    return digest.hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def _problems(subject: Subject, sizes: Sizes) -> Iterator[Problem]:
    quick = sizes.rows < FULL.rows
    train, chosen, steps = (60, 5, 50) if quick else (500, 40, 150)
    logistic = _digits("logistic", [nn.Linear(64, 10)], train, chosen, steps, 0.005)
    yield logistic
    for relative in (0.005, 0.001):
        layers = [nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)]
        yield _digits(f"MLP {relative:g}", layers, train, chosen, steps, relative)
    yield _language(subject, min(sizes.rows, 40), sizes.queries, 5 if quick else 8)


class _Classifier(nn.Module):
    """Called as a classifier of transformers is."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.net(pixels))


def _digits(name: str, layers: list[nn.Module], rows: int, chosen: int, steps: int, relative: float) -> Problem:
    """scikit-learn's 8 x 8 digits, a tenth of the train labels wrong; short training by Adam on all rows at once."""
    generator = Generator().manual_seed(0)
    data = load_digits()
    order_N = torch.randperm(len(data.target), generator=generator)
    pixel_NF, label_N = torch.tensor(data.data)[order_N] / 16, torch.tensor(data.target)[order_N]
    wrong = torch.randperm(rows, generator=generator)[: rows // 10]
    label_N[wrong] = (label_N[wrong] + torch.randint(1, 10, wrong.shape, generator=generator)) % 10
    model = _Classifier(layers).double()
    for parameter in model.parameters():
        bound = parameter.shape[-1] ** -0.5
        parameter.data = (torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixel_NF[:rows]).logits, label_N[:rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    train, validation = (
        [Batch(tuple(range(len(part))), {"pixels": pixel_NF[part]}, label_N[part])]
        for part in (torch.arange(rows), torch.arange(rows, rows + 50))
    )
    blocks = [BlockShape.of(parameter_name, tuple(value.shape)) for parameter_name, value in model.named_parameters()]
    return Problem(name, model, blocks, train, validation, relative, chosen)


def _language(subject: Subject, rows: int, queries: int, chosen: int) -> Problem:
    """The subject's model and adapter, on the first of its own train rows and others after them."""
    spec = subject.spec(subject.sentences, subject.sentences)
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"limit": rows + queries})})
    inputs, loaded, settings = load(subject, spec, subject.data_root / FOLDER / "cache")
    count = len(inputs.train)
    train, validation = (
        make_batches(
            inputs.train, start, stop, loaded.tokenizer,
            max_length=128, token_budget=settings.token_budget, device="cpu",
        )
        for start, stop in ((0, count - queries), (count - queries, count))
    )  # fmt: skip
    blocks = list(inputs.checkpoint.blocks)
    return Problem("MiniLM", loaded.model, blocks, train, validation, 0.005, chosen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pbrf", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all of it runs, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(measure(demo_subject(), QUICK if options.quick else FULL))
    facts = machine()
    show(rows, facts)
    print(f"Written to {save(rows, facts, OUTPUT)}")


if __name__ == "__main__":
    main()
