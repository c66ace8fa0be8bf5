"""The corrected eigenvalues against the diagonal they are, and the theorem that makes them the best ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.linear_nets import TokenNet, blocks, gradients, make_batch, second_moment
from worker.curvature.ekfac import ekfac
from worker.curvature.kfac import kfac
from worker.eigen_operators import EigenOperator
from worker.gradients.cotangents import OfGaussNewton, OfSampledLabel
from worker.gradients.factors import FactorSums

OF = OfSampledLabel(5)
BATCHES = [make_batch((3, 1, 4, 2) * 5), make_batch((2, 6, 5) * 7, first=20)]
ROWS = 41


def _both() -> list[tuple[EigenOperator, EigenOperator, Tensor]]:
    """K-FAC, EK-FAC and the per-example gradients of every block."""
    model = TokenNet()
    sums = FactorSums(model, blocks(model), [OF])
    for batch in BATCHES:
        sums.add(batch)
    found = []
    for factors, grad_NP in zip(sums.factors(), gradients(model, BATCHES, OF), strict=True):
        plain = kfac("block", factors)
        found.append((plain, ekfac(plain, [grad_NP[:7], grad_NP[7:]], ROWS), grad_NP))
    return found


def _dense(operator: EigenOperator) -> Tensor:
    return operator.matmul(torch.eye(operator.size, dtype=torch.float64))


@pytest.mark.parametrize("block", range(4))
def test_its_eigenvalues_are_the_fisher_blocks_diagonal_in_that_basis(block: int) -> None:
    plain, corrected, grad_NP = _both()[block]
    basis_PP = torch.kron(plain.left_RR, plain.right_DD)
    expected_P = (basis_PP.T @ second_moment(grad_NP) @ basis_PP).diagonal()
    torch.testing.assert_close(corrected.value_RD.flatten(), expected_P)
    assert corrected.trace() == pytest.approx(float(grad_NP.square().sum(1).mean()))


@pytest.mark.parametrize("block", range(4))
def test_no_other_diagonal_is_as_close(block: int) -> None:
    plain, corrected, grad_NP = _both()[block]
    true_PP = second_moment(grad_NP)
    error = (_dense(corrected) - true_PP).norm()
    assert error <= (_dense(plain) - true_PP).norm() + 1e-7 * true_PP.norm()
    for scale in (0.99, 1.01):
        other = EigenOperator(corrected.left_RR, corrected.right_DD, corrected.value_RD * scale)
        assert error < (_dense(other) - true_PP).norm()


def test_components_of_the_gauss_newton_hessian_add_up() -> None:
    plain = _both()[2][0]
    chunks = [gradients(TokenNet(), BATCHES, OfGaussNewton(k))[2] for k in range(3)]
    basis_PP = torch.kron(plain.left_RR, plain.right_DD)
    true_PP = sum(second_moment(chunk) for chunk in chunks)
    expected_P = (basis_PP.T @ true_PP @ basis_PP).diagonal()
    torch.testing.assert_close(ekfac(plain, chunks, ROWS).value_RD.flatten(), expected_P)


def test_gradients_of_another_width_are_refused() -> None:
    plain, _, grad_NP = _both()[0]
    with pytest.raises(ValueError, match="wide"):
        ekfac(plain, [grad_NP[:, :-1]], ROWS)
