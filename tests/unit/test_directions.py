"""Top directions against a dense eigendecomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from worker.directions import top_directions, without
from worker.operators import DenseOperator, RowsOperator


def _rows(count: int, size: int, decay: float = 1.3) -> Tensor:
    generator = Generator().manual_seed(1)
    scale_P = decay ** -torch.arange(size, dtype=torch.float64)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) * scale_P


@pytest.mark.parametrize("dense", [True, False])
def test_spans_the_largest_eigenvectors_in_order(dense: bool) -> None:
    grad_NP = _rows(80, 40)
    matrix_PP = grad_NP.T @ grad_NP / 80
    operator = DenseOperator(matrix_PP) if dense else RowsOperator([grad_NP])
    found_Pk = top_directions(operator, 6, Generator().manual_seed(0))
    _, vector_PP = torch.linalg.eigh(matrix_PP)
    cosine_k = (found_Pk * vector_PP.flip(1)[:, :6]).sum(0).abs()
    torch.testing.assert_close(cosine_k, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-4)


def test_takes_them_out_and_nothing_else() -> None:
    operator = RowsOperator([_rows(30, 12)])
    found_Pk = top_directions(operator, 3, Generator().manual_seed(0))
    rhs_PK = torch.randn(12, 2, generator=Generator().manual_seed(2), dtype=torch.float64)
    left_PK = without(found_Pk, rhs_PK)
    assert float((found_Pk.T @ left_PK).abs().max()) < 1e-12
    torch.testing.assert_close(without(found_Pk, left_PK), left_PK)


def test_no_more_directions_than_there_are() -> None:
    found_Pk = top_directions(RowsOperator([_rows(5, 4)]), 10, Generator().manual_seed(0))
    assert found_Pk.shape == (4, 4)
