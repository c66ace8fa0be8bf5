from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from ascribe.errors import NonFinite
from worker.curvature.block import CurvatureKind, build_block
from worker.operators import Damped
from worker.scores.influence import influence
from worker.scores.self_influence import self_influence
from worker.solvers.base import Solver
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.identity import Identity
from worker.solvers.schulz import Schulz
from worker.solvers.solve import solve

R, D = 2, 6


def _grad(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, R * D, generator=Generator().manual_seed(seed))


PAIRS: list[tuple[CurvatureKind, Solver[Any]]] = [
    ("gfim", Schulz()),
    ("gfim", Cholesky()),
    ("empirical_fisher", Cholesky()),
    ("empirical_fisher", DataInf()),
    ("none", Identity()),
]


@pytest.mark.parametrize(("kind", "solver"), PAIRS)
def test_self_influence_is_the_diagonal_of_influence(kind: CurvatureKind, solver: Solver[Any]) -> None:
    grad_NP = _grad(9, seed=0)
    chunks = [grad_NP[:4], grad_NP[4:]]
    block = build_block("w", kind, chunks, R, D)
    operator = Damped(block.operator, 0.0 if kind == "none" else 0.1)
    solution = solve(operator, block.to_rhs(grad_NP), solver)
    score_NN = influence(chunks, block.from_rhs(solution.x_PK), "w")
    score_N = self_influence(chunks, block, solver, solution.state)
    torch.testing.assert_close(score_N.float(), score_NN.diagonal(), rtol=1e-4, atol=0)
    assert (score_N > 0).all()


def test_a_helpful_example_is_positive() -> None:
    """One step down the gradient of a proponent lowers the validation loss: its score is positive."""
    grad_NP = torch.eye(R * D)[:2]
    score_QN = influence([torch.stack([grad_NP[0], -grad_NP[0], grad_NP[1]])], grad_NP[:1].double(), "w")
    assert score_QN.tolist() == [[1.0, -1.0, 0.0]]
    assert score_QN.dtype == torch.float32


def test_scores_keep_what_cancels_in_float32() -> None:
    grad_NP = torch.tensor([[1e4, 1e4, 1.0]])
    ihvp_QP = torch.tensor([[1.0, -1.0 + 1e-9, 1e-7]], dtype=torch.float64)
    assert float(influence([grad_NP], ihvp_QP, "w")) == pytest.approx(1.01e-5, rel=1e-5)


def test_scores_that_are_not_finite_name_the_block() -> None:
    ihvp_QP = torch.full((1, R * D), 1e300, dtype=torch.float64)
    with pytest.raises(NonFinite, match=r"layer\.3"):
        influence([_grad(3, seed=0)], ihvp_QP, "layer.3")


@pytest.mark.parametrize("cancellation", [1e2, 1e7])
def test_scores_of_many_rows_equal_float64(cancellation: float) -> None:
    """Shared directions that the iHVP all but misses: float32 products lose the rest unless the tile notices."""
    generator = Generator().manual_seed(1)
    shared_P = torch.randn(3000, generator=generator, dtype=torch.float64)
    shared_P /= shared_P.norm()
    grad_NP = torch.randn(600, 3000, generator=generator) + cancellation * shared_P
    grad_NP = grad_NP.float()
    ihvp_QP = torch.randn(3, 3000, generator=generator, dtype=torch.float64)
    ihvp_QP -= (ihvp_QP @ shared_P)[:, None] * shared_P
    score_QN = influence([grad_NP[:290], grad_NP[290:]], ihvp_QP, "w")
    expected_QN = ihvp_QP @ grad_NP.double().T
    assert float((score_QN - expected_QN).norm() / expected_QN.norm()) < 1e-5
