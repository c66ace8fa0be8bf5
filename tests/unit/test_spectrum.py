from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from worker.operators import DenseOperator, IdentityOperator, RowsOperator
from worker.spectrum import Spectrum, lanczos, largest_eigenvalue, measure


def _rows(seed: int) -> Tensor:
    generator = Generator().manual_seed(seed)
    scale_N = torch.randn(60, 1, generator=generator).exp()
    return torch.randn(60, 40, generator=generator) * torch.linspace(1, 0.1, 40) * scale_N


@pytest.mark.parametrize("seed", range(5))
def test_the_ritz_value_brackets_the_largest_eigenvalue(seed: int) -> None:
    operator = RowsOperator([_rows(seed)])
    matrix_PP = operator.matmul(torch.eye(40, dtype=torch.float64))
    largest = float(torch.linalg.eigvalsh(matrix_PP)[-1])
    for subject in (operator, DenseOperator(matrix_PP)):
        ritz = lanczos(subject, Generator().manual_seed(seed))
        assert ritz.value <= largest * (1 + 1e-12)
        assert ritz.value == pytest.approx(largest, rel=1e-3)
        assert largest <= ritz.upper * (1 + 1e-12)


def test_a_tight_tolerance_is_met_where_eigenvalues_cluster() -> None:
    value_P = torch.cat([torch.linspace(0.99, 1, 20), torch.linspace(0, 0.5, 30)]).double()
    assert largest_eigenvalue(DenseOperator(value_P.diag()), Generator().manual_seed(0), 1e-9) == pytest.approx(
        1, rel=1e-9
    )


def test_degenerate_spectra() -> None:
    generator = Generator().manual_seed(0)
    assert largest_eigenvalue(IdentityOperator(9), generator) == pytest.approx(1)
    assert largest_eigenvalue(DenseOperator(torch.zeros(4, 4, dtype=torch.float64)), generator) == 0
    assert largest_eigenvalue(DenseOperator(torch.full((1, 1), 3.0, dtype=torch.float64)), generator) == pytest.approx(
        3
    )


def test_same_seed_same_bits() -> None:
    operator = RowsOperator([_rows(0)])
    for look in (lanczos, measure):
        assert look(operator, Generator().manual_seed(3)) == look(operator, Generator().manual_seed(3))


def _gaussian(seed: int) -> RowsOperator:
    return RowsOperator([torch.randn(500, 300, generator=Generator().manual_seed(seed))])


def _heavy(seed: int) -> RowsOperator:
    """A few rows are most of the matrix, as with real gradients."""
    generator = Generator().manual_seed(seed)
    grad_NP = torch.randn(400, 300, generator=generator) / torch.arange(1, 301).sqrt()
    return RowsOperator([grad_NP * (2 * torch.randn(400, 1, generator=generator)).exp()])


def _rank_one(seed: int) -> RowsOperator:
    return RowsOperator([torch.randn(1, 300, generator=Generator().manual_seed(seed))])


def _matrix(operator: RowsOperator) -> Tensor:
    return operator.matmul(torch.eye(operator.size, dtype=torch.float64))


def _looks(build: Callable[[int], RowsOperator], runs: int = 20) -> list[tuple[Spectrum, Tensor]]:
    """Each with the true eigenvalues, descending."""
    return [
        (measure(build(seed), Generator().manual_seed(seed)), torch.linalg.eigvalsh(_matrix(build(seed))).flip(0))
        for seed in range(runs)
    ]


@pytest.mark.parametrize("build", [_gaussian, _heavy, _rank_one])
def test_what_is_measured_is_true_to_within_what_is_said(build: Callable[[int], RowsOperator]) -> None:
    """Both errors are of 95 in 100: of 20 runs, 17 within them happen 98 times in 100."""
    traces = tops = 0
    for found, value_P in _looks(build):
        assert found.largest == pytest.approx(float(value_P[0]), rel=0.02)
        assert found.largest <= float(value_P[0]) * (1 + 1e-12)
        rounding = 1e-9 * float(value_P.sum())  # all the error there is where one eigenvalue is everything
        traces += abs(found.trace - float(value_P.sum())) <= 2 * found.trace_standard_error + rounding
        told_P = torch.zeros_like(value_P)
        told_P[: len(found.top_values)] = torch.tensor(found.top_values, dtype=torch.float64)
        tops += bool((told_P - value_P).abs().max() <= found.top_error + rounding)
        assert found.top_error <= 1.5 * 4 / 32**0.5 * float(value_P[1:].norm()) + 1e-9  # no wider than it has to be
    assert traces >= 17
    assert tops >= 17


@pytest.mark.parametrize("build", [_gaussian, _heavy])
def test_the_batch_variance_is_that_of_the_draws(build: Callable[[int], RowsOperator]) -> None:
    """For rows drawn by their squared norms ``E[C_n^2] = tr(C) C``, so the truth is ``(tr(C)^2 - ||C||_F^2) / |B|``."""
    operator = build(0)
    truth = (operator.trace() ** 2 - float(_matrix(operator).square().sum())) / 10
    found = measure(operator, Generator().manual_seed(1), batch_size=10, pairs=200)
    assert found.batch_variance is not None
    assert found.batch_variance_standard_error is not None
    assert abs(found.batch_variance - truth) <= 2 * found.batch_variance_standard_error
    assert found.batch_variance_standard_error < 0.2 * truth
    assert found.noise_constant == pytest.approx(truth * 10 / operator.trace(), rel=0.4)


def test_products_are_counted() -> None:
    class Counting(RowsOperator):
        columns_seen = 0

        def matmul(self, x_PK: Tensor) -> Tensor:
            self.columns_seen += x_PK.shape[1]
            return super().matmul(x_PK)

    operator = Counting([_rows(0)])
    found = measure(operator, Generator().manual_seed(0), columns=16, batch_size=6, pairs=5)
    assert found.products == operator.columns_seen + 1  # 2 * 5 * 6 rows of 60 are one product
    assert measure(DenseOperator(_matrix(operator)), Generator().manual_seed(0)).products < 32 + 40


def test_a_small_matrix_is_taken_whole() -> None:
    value_P = torch.linspace(3, 0, 20, dtype=torch.float64)
    found = measure(DenseOperator(value_P.diag()), Generator().manual_seed(0))
    assert found.top_values == pytest.approx(value_P.tolist())
    assert (found.trace, found.largest) == pytest.approx((30, 3))
    assert found.trace_standard_error == found.top_error == found.largest_residual == 0
    assert found.batch_variance is found.noise_constant is None
    assert found.products == 20


@pytest.mark.parametrize("size", [9, 50])
def test_a_matrix_of_zeros_has_a_spectrum(size: int) -> None:
    found = measure(RowsOperator([torch.zeros(5, size)]), Generator().manual_seed(0))
    assert (found.trace, found.largest, found.top_error, found.batch_variance) == (0, 0, 0, None)


def test_refuses_what_has_no_standard_error() -> None:
    for bad in ({"columns": 1}, {"pairs": 1}):
        with pytest.raises(ValueError, match="two columns"):
            measure(IdentityOperator(9), Generator().manual_seed(0), **bad)
