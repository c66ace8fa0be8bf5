from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator, LinearOperator, RowsOperator
from worker.solvers.cg import Cg
from worker.solvers.solve import solve

P = 200


def _decaying(damping: float, decay: float = 1.0) -> Damped:
    value_P = torch.arange(1, P + 1, dtype=torch.float64) ** -decay
    return Damped(DenseOperator(value_P.diag()), damping)


def _rhs(columns: int = 4, size: int = P) -> Tensor:
    return torch.randn(size, columns, dtype=torch.float64, generator=Generator().manual_seed(3))


class Implicit(LinearOperator):
    """Known by its products alone; remembers how wide they were."""

    def __init__(self, matrix_PP: Tensor) -> None:
        self._matrix_PP, self.size = matrix_PP, len(matrix_PP)
        self.widths: list[int] = []

    def matmul(self, x_PK: Tensor) -> Tensor:
        self.widths.append(x_PK.shape[1])
        return self._matrix_PP @ x_PK

    def trace(self) -> float:
        return float(self._matrix_PP.diagonal().sum())


@pytest.mark.parametrize("rank", [0, None, 20])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_reaches_its_tolerance_within_the_predicted_steps(rank: int | None, condition: float, tolerance: float) -> None:
    solution = solve(_decaying(1 / condition), _rhs(), Cg(tolerance=tolerance, rank=rank))
    assert solution.status is SolveStatus.CONVERGED
    assert solution.stats.plan is not None
    assert solution.stats.iterations <= 1.1 * solution.stats.plan["predicted_iterations"] + 1


def test_it_takes_as_many_steps_as_there_are_different_eigenvalues() -> None:
    value_P = torch.ones(P, dtype=torch.float64)
    value_P[:5] = torch.tensor([10.0, 30.0, 60.0, 100.0, 200.0], dtype=torch.float64)
    operator = Damped(DenseOperator(value_P.diag()), 1.0)
    assert solve(operator, _rhs(), Cg(tolerance=1e-10, rank=0)).stats.iterations == 6


def test_the_sketch_saves_more_steps_than_it_takes_columns() -> None:
    operator = _decaying(1e-4, decay=2.0)
    plain, sketched = (solve(operator, _rhs(), Cg(rank=rank)).stats for rank in (0, None))
    assert sketched.plan is not None
    assert sketched.plan["rank"] > 0
    assert sketched.iterations + sketched.plan["rank"] < plain.iterations


def test_no_sketch_where_few_steps_are_left_to_save() -> None:
    state = Cg().init(_decaying(10.0))
    assert state.sketch is None
    assert state.plan.rank == 0


def test_the_rank_asked_for_is_taken_and_no_more_than_there_is() -> None:
    assert Cg(rank=12).init(_decaying(1e-2)).plan.rank == 12
    assert Cg(rank=10_000).init(_decaying(1e-2)).plan.rank == P


def test_a_converged_column_leaves_the_product() -> None:
    """A column in the span of one eigenvector takes one step, whatever stands beside it."""
    operator = Implicit(torch.arange(1, P + 1, dtype=torch.float64).reciprocal().diag())
    rhs_PK = _rhs()
    rhs_PK[:, 1] = 0
    rhs_PK[7, 1] = 1
    solution = solve(Damped(operator, 1e-3), rhs_PK, Cg(rank=0))
    assert solution.status is SolveStatus.CONVERGED
    assert operator.widths[:2] == [4, 3]
    # Every step and one check; what follows is solve's own measurement.
    assert len(operator.widths) == solution.stats.products + 1 == solution.stats.iterations + 2


def test_takes_operators_known_by_products_alone_and_by_rows() -> None:
    grad_NP = torch.randn(50, P, generator=Generator().manual_seed(0))
    rows = RowsOperator([grad_NP[:20], grad_NP[20:]])
    implicit = Implicit(rows.matmul(torch.eye(P, dtype=torch.float64)))
    x_PK, y_PK = (solve(Damped(operator, 0.1), _rhs(), Cg(tolerance=1e-12)).x_PK for operator in (rows, implicit))
    torch.testing.assert_close(x_PK, y_PK, rtol=0, atol=1e-10)


def test_a_tolerance_below_rounding_ends_with_a_note_and_not_with_the_limit() -> None:
    solution = solve(_decaying(1e-6), _rhs(), Cg(tolerance=1e-16, rank=0))
    assert solution.status is SolveStatus.MAX_ITERATIONS
    assert solution.stats.iterations < 1000
    assert "rounding" in " ".join(solution.stats.notes)


@pytest.mark.parametrize("rank", [0, None])
def test_a_curvature_that_is_not_finite_ends_as_such(rank: int | None) -> None:
    class Broken(Implicit):
        def matmul(self, x_PK: Tensor) -> Tensor:
            return torch.full_like(x_PK, math.nan)

    solution = solve(Damped(Broken(torch.eye(P, dtype=torch.float64)), 1e-3), _rhs(), Cg(rank=rank))
    assert solution.status is SolveStatus.NON_FINITE


def test_a_slightly_indefinite_curvature_that_damping_mends_is_solved_without_a_sketch() -> None:
    value_P = torch.linspace(-0.5, 100, P, dtype=torch.float64)
    solution = solve(Damped(DenseOperator(value_P.diag()), 0.6), _rhs(), Cg(rank=P))
    assert solution.status is SolveStatus.CONVERGED
    assert "no preconditioner" in solution.stats.notes[0]


def test_a_damping_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="damping above zero"):
        Cg().check(_decaying(0.0))


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"max_iterations": 0}, {"rank": -1}])
def test_refuses_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Cg(**bad)
