from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from worker import operators
from worker.operators import Damped, DenseOperator, IdentityOperator, RowsOperator
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.solve import solve


def _gradients(count: int = 23, size: int = 7) -> Tensor:
    return torch.randn(count, size, generator=Generator().manual_seed(0)) * torch.linspace(0, 3, count)[:, None]


@pytest.fixture(params=["one chunk", "three chunks", "strided views", "tiny slabs"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RowsOperator:
    grad_NP = _gradients()
    match request.param:
        case "three chunks":
            return RowsOperator([grad_NP[:4], grad_NP[4:5], grad_NP[5:]])
        case "strided views":
            wide_NP = torch.cat([torch.full((23, 2), torch.nan), grad_NP, torch.full((23, 3), torch.nan)], dim=1)
            return RowsOperator([wide_NP[:9, 2:9], wide_NP[9:, 2:9]])
        case "tiny slabs":
            monkeypatch.setattr(operators, "_SLAB_BYTES", 150)
    return RowsOperator([grad_NP])


def test_rows_are_the_second_moment(rows: RowsOperator) -> None:
    grad_NP = _gradients().double()
    matrix_PP = grad_NP.T @ grad_NP / 23
    torch.testing.assert_close(rows.matmul(torch.eye(7, dtype=torch.float64)), matrix_PP)
    assert rows.trace() == pytest.approx(float(matrix_PP.trace()))
    assert rows.max_squared_norm() == pytest.approx(float(grad_NP.square().sum(dim=1).max()))
    assert rows.norm_bound() >= float(torch.linalg.eigvalsh(matrix_PP)[-1])


def test_products_follow_the_dtype_of_the_vectors(rows: RowsOperator) -> None:
    assert rows.matmul(torch.ones(7, 2)).dtype == torch.float32
    assert rows.matmul(torch.ones(7, 2, dtype=torch.float64)).dtype == torch.float64


def test_rows_and_columns_come_back_in_slabs(rows: RowsOperator) -> None:
    torch.testing.assert_close(torch.cat(list(rows.slabs())), _gradients().double())
    torch.testing.assert_close(torch.cat(list(rows.columns()), dim=1), _gradients().double())
    indices = torch.tensor([20, 0, 4, 20, 5])
    torch.testing.assert_close(rows.rows(indices).sort(dim=0).values, _gradients()[indices].sort(dim=0).values)


def test_sampled_products_are_unbiased_and_never_draw_a_zero_row(rows: RowsOperator) -> None:
    indices = rows.draw(200_000, Generator().manual_seed(1))
    assert 0 not in indices  # row 0 is zero
    x_PK = torch.eye(7, dtype=torch.float64)
    estimate_PP = rows.matmul_sampled(x_PK, indices)
    assert float((estimate_PP - rows.matmul(x_PK)).norm() / rows.matmul(x_PK).norm()) < 0.02


def test_the_noise_of_a_sampled_product_is_the_trace_times_c(rows: RowsOperator) -> None:
    """``E[C_n^2] = tr(C) C`` for one drawn example: the constant in LiSSA's stability condition."""
    x_PK = torch.eye(7, dtype=torch.float64)
    probability_N = rows.squared_norms() / rows.squared_norms().sum()
    squares = [
        rows.matmul_sampled(x_PK, torch.tensor([n])) @ rows.matmul_sampled(x_PK, torch.tensor([n])) * probability_N[n]
        for n in range(1, 23)
    ]
    torch.testing.assert_close(torch.stack(squares).sum(dim=0), rows.trace() * rows.matmul(x_PK))


def test_a_scale_is_the_same_matrix_as_longer_rows(rows: RowsOperator) -> None:
    """Whoever reads it: products, draws, norms, and the solvers that read rows, slabs or columns."""
    plain = RowsOperator([_gradients().double() * 2])
    scaled = RowsOperator(rows.chunks, scale=4.0)
    x_PK = torch.randn(7, 3, dtype=torch.float64, generator=Generator().manual_seed(2))
    indices = plain.draw(9, Generator().manual_seed(1))
    assert torch.equal(scaled.draw(9, Generator().manual_seed(1)), indices)
    torch.testing.assert_close(scaled.matmul(x_PK), plain.matmul(x_PK))
    torch.testing.assert_close(scaled.matmul_sampled(x_PK, indices), plain.matmul_sampled(x_PK, indices))
    torch.testing.assert_close(scaled.squared_norms(), plain.squared_norms())
    assert (scaled.trace(), scaled.max_squared_norm()) == pytest.approx((plain.trace(), plain.max_squared_norm()))
    torch.testing.assert_close(torch.cat(list(scaled.slabs())), torch.cat(list(plain.slabs())))
    torch.testing.assert_close(torch.cat(list(scaled.columns()), dim=1), torch.cat(list(plain.columns()), dim=1))
    torch.testing.assert_close(scaled.rows(indices).double().sum(dim=0), plain.rows(indices).sum(dim=0))
    for solver in (Cholesky(), DataInf()):
        found, expected = (solve(Damped(operator, 0.1), x_PK, solver) for operator in (scaled, plain))
        torch.testing.assert_close(found.x_PK, expected.x_PK)


def test_damping_enters_once() -> None:
    matrix_PP = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    damped = Damped(DenseOperator(matrix_PP), 0.5)
    torch.testing.assert_close(damped.matmul(torch.eye(3, dtype=torch.float64)), matrix_PP + 0.5 * torch.eye(3))
    assert damped.upper_bound() == 3.5
    assert damped.condition_bound() == 7.0


def test_refuses_what_is_no_operator() -> None:
    with pytest.raises(ValueError, match="square"):
        DenseOperator(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="float64"):
        DenseOperator(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="one width"):
        RowsOperator([torch.zeros(2, 3), torch.zeros(2, 4)])
    with pytest.raises(ValueError, match="one row"):
        RowsOperator([torch.zeros(0, 3)])
    with pytest.raises(ValueError, match="scale"):
        RowsOperator([torch.zeros(2, 3)], scale=0.0)
    with pytest.raises(ValueError, match="damping"):
        Damped(IdentityOperator(3), -1.0)
