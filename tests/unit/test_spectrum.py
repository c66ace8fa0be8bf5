from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from worker.operators import DenseOperator, IdentityOperator, RowsOperator
from worker.spectrum import lanczos, largest_eigenvalue


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
    assert lanczos(operator, Generator().manual_seed(3)) == lanczos(operator, Generator().manual_seed(3))
