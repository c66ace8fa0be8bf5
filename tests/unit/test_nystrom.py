from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from worker.operators import DenseOperator, LinearOperator
from worker.solvers.nystrom import Sketch, Sketcher

P = 60


def _matrix(decay: float, seed: int = 0) -> Tensor:
    """Eigenvalues ``i^-decay`` in a random basis."""
    basis_PP: Tensor
    gauss_PP = torch.randn(P, P, dtype=torch.float64, generator=Generator().manual_seed(seed))
    basis_PP, _ = torch.linalg.qr(gauss_PP)
    value_P = torch.arange(1, P + 1, dtype=torch.float64) ** -decay
    matrix_PP = basis_PP * value_P @ basis_PP.T
    return (matrix_PP + matrix_PP.T) / 2


def _sketch(matrix_PP: Tensor, *ranks: int) -> Sketch:
    sketcher = Sketcher(DenseOperator(matrix_PP), Generator().manual_seed(1))
    for rank in ranks:
        sketcher.widen(rank)
    sketch = sketcher.sketch()
    assert sketch is not None
    return sketch


def _dense(sketch: Sketch) -> Tensor:
    return sketch.basis_PR * sketch.value_R @ sketch.basis_PR.T


@pytest.mark.parametrize("decay", [0.5, 2.0])
@pytest.mark.parametrize("ranks", [(16,), (8, 8), (4, 4, 8)])
def test_it_is_the_nystrom_approximation_of_its_range_and_never_exceeds_the_matrix(
    decay: float, ranks: tuple[int, ...]
) -> None:
    matrix_PP = _matrix(decay)
    sketcher = Sketcher(DenseOperator(matrix_PP), Generator().manual_seed(1))
    generator, test_PR = Generator().manual_seed(1), torch.zeros(P, 0, dtype=torch.float64)
    for rank in ranks:
        sketcher.widen(rank)
        new_PR = torch.randn(P, rank, generator=generator, dtype=torch.float64)
        test_PR = torch.cat([test_PR, new_PR], dim=1)
    sketch = sketcher.sketch()
    assert sketch is not None
    product_PR = matrix_PP @ test_PR  # the approximation depends on the span alone
    expected_PP = product_PR @ torch.linalg.solve(test_PR.T @ product_PR, product_PR.T)
    torch.testing.assert_close(_dense(sketch), expected_PP, rtol=0, atol=1e-11)
    assert float(torch.linalg.eigvalsh(matrix_PP - _dense(sketch))[0]) >= -1e-13
    torch.testing.assert_close(sketch.basis_PR.T @ sketch.basis_PR, torch.eye(16, dtype=torch.float64))


def test_a_matrix_of_low_rank_is_found_whole() -> None:
    value_P = torch.cat([torch.linspace(1, 2, 5), torch.zeros(P - 5)]).double()
    sketch = _sketch(value_P.diag(), 8)
    torch.testing.assert_close(_dense(sketch), value_P.diag(), rtol=0, atol=1e-12)
    assert sketch.smallest == pytest.approx(0, abs=1e-13)


def test_all_columns_give_the_matrix_itself_and_a_condition_of_one() -> None:
    matrix_PP = _matrix(3.0)
    sketch = _sketch(matrix_PP, 8, 16, 32, 4)
    torch.testing.assert_close(_dense(sketch), matrix_PP, rtol=0, atol=1e-12)
    assert _condition(matrix_PP, sketch, 1e-6) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("damping", [1e-1, 1e-3])
def test_the_preconditioner_brings_the_condition_within_its_bound(decay: float, damping: float) -> None:
    matrix_PP = _matrix(decay)
    sketch = _sketch(matrix_PP, 16)
    left = float(torch.linalg.matrix_norm(matrix_PP - _dense(sketch), ord=2))
    condition = _condition(matrix_PP, sketch, damping)
    assert condition <= (1 + (sketch.smallest + left) / damping) * (1 + 1e-9)
    assert condition < (1 + damping) / (P**-decay + damping)


def test_zero_is_sketched_as_zero() -> None:
    sketch = _sketch(torch.zeros(P, P, dtype=torch.float64), 4)
    x_PK = torch.ones(P, 2, dtype=torch.float64)
    torch.testing.assert_close(sketch.precondition(x_PK, 0.5), x_PK)


def test_an_indefinite_matrix_has_no_sketch() -> None:
    sketcher = Sketcher(DenseOperator(torch.linspace(-1, 1, P, dtype=torch.float64).diag()), Generator())
    sketcher.widen(8)
    assert sketcher.sketch() is None


def test_one_product_a_widening() -> None:
    class Counting(DenseOperator):
        widths: tuple[int, ...] = ()

        def matmul(self, x_PK: Tensor) -> Tensor:
            self.widths += (x_PK.shape[1],)
            return super().matmul(x_PK)

    operator: LinearOperator = Counting(_matrix(1.0))
    sketcher = Sketcher(operator, Generator())
    for columns in (8, 8, 16):
        sketcher.widen(columns)
        sketcher.sketch()
    assert isinstance(operator, Counting)
    assert operator.widths == (8, 8, 16)
    assert sketcher.rank == 32


def _condition(matrix_PP: Tensor, sketch: Sketch, damping: float) -> float:
    """Of ``M^-1 A``, whose eigenvalues are those of the symmetric ``L^T A L`` with ``M^-1 = L L^T``."""
    eye_PP = torch.eye(P, dtype=torch.float64)
    root_PP = torch.linalg.cholesky(sketch.precondition(eye_PP, damping))
    value_P = torch.linalg.eigvalsh(root_PP.T @ (matrix_PP + damping * eye_PP) @ root_PP)
    return float(value_P[-1] / value_P[0])
