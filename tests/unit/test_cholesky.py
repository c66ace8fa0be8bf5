from __future__ import annotations

import pytest
import torch
from torch import Generator

from ascribe.errors import LimitExceeded
from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator, RowsOperator
from worker.solvers.cholesky import Cholesky
from worker.solvers.solve import solve


@pytest.mark.parametrize("count", [1, 12, 30, 80])
@pytest.mark.parametrize("damping", [1e-6, 1.0])
def test_both_sides_of_woodbury_equal_the_dense_solution(count: int, damping: float) -> None:
    generator = Generator().manual_seed(0)
    rows = RowsOperator([torch.randn(count, 30, generator=generator)])
    rhs_PK = torch.randn(30, 4, dtype=torch.float64, generator=generator)
    dense = DenseOperator(rows.matmul(torch.eye(30, dtype=torch.float64)))
    through_rows = solve(Damped(rows, damping), rhs_PK, Cholesky())
    through_block = solve(Damped(dense, damping), rhs_PK, Cholesky())
    assert through_rows.status is through_block.status is SolveStatus.CONVERGED
    torch.testing.assert_close(through_rows.x_PK, through_block.x_PK, rtol=1e-7, atol=1e-9 / damping)


def test_factors_the_smaller_of_the_two() -> None:
    for count, size in ((12, 12), (80, 30)):
        state = Cholesky().init(Damped(RowsOperator([torch.ones(count, 30)]), 1.0))
        assert state.factor is not None
        assert state.factor.shape == (size, size)


def test_the_limit_is_on_what_is_factored() -> None:
    Cholesky(max_size=12).check(Damped(RowsOperator([torch.ones(12, 30)]), 1.0))
    with pytest.raises(LimitExceeded, match="30 x 30; its limit is 12"):
        Cholesky(max_size=12).check(Damped(RowsOperator([torch.ones(80, 30)]), 1.0))
    with pytest.raises(LimitExceeded):
        Cholesky(max_size=12).init(Damped(DenseOperator(torch.eye(30, dtype=torch.float64)), 1.0))


@pytest.mark.parametrize("bad", [{"max_size": 0}, {"tolerance": 0.0}])
def test_refuses_impossible_parameters(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Cholesky(**bad)  # type: ignore[arg-type]
