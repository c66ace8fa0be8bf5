from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from ascribe.errors import NonFinite
from worker.curvature.block import CurvatureKind, build_block
from worker.curvature.gfim import gfim

N, R, D = 30, 3, 5
NORMALIZED: tuple[CurvatureKind, ...] = ("gfim", "empirical_fisher")


def _gradients() -> Tensor:
    return torch.randn(N, R, D, generator=Generator().manual_seed(0))


def _chunks() -> list[Tensor]:
    grad_NP = _gradients().reshape(N, R * D)
    return [grad_NP[:11], grad_NP[11:]]


@pytest.mark.parametrize("normalized", [True, False])
def test_gfim_is_the_mean_of_its_definition(normalized: bool) -> None:
    expected_DD = torch.stack([g_RD.T @ g_RD for g_RD in _gradients().double()]).mean(dim=0)
    matrix_DD = gfim(_chunks(), R, D, normalized=normalized).matrix_PP
    torch.testing.assert_close(matrix_DD, expected_DD / (R if normalized else 1))
    assert torch.equal(matrix_DD, matrix_DD.T)


def test_gfim_is_one_factor_of_a_kronecker_fisher() -> None:
    """Where the Fisher block is ``I_R (x) S``, a GFIM solve through the columns is a solve with the whole block."""
    root_DD = torch.randn(D, D, dtype=torch.float64, generator=Generator().manual_seed(1))
    # Row r of every example is one column of the root and all other rows are zero, so the mean is I (x) S / (R D).
    grad_NRD = torch.zeros(R * D, R, D, dtype=torch.float64)
    for r in range(R):
        for d in range(D):
            grad_NRD[r * D + d, r] = root_DD[:, d]
    grad_NP = grad_NRD.reshape(R * D, R * D)
    fisher_PP = grad_NP.T @ grad_NP / (R * D)
    block = build_block("w", "gfim", [grad_NP], R, D)
    eye_DD = torch.eye(D, dtype=torch.float64)
    matrix_DD = block.operator.matmul(eye_DD)
    torch.testing.assert_close(torch.kron(torch.eye(R, dtype=torch.float64), matrix_DD), fisher_PP)

    v_QP = torch.randn(4, R * D, dtype=torch.float64, generator=Generator().manual_seed(2))
    through_columns_QP = block.from_rhs(torch.linalg.solve(matrix_DD + 0.1 * eye_DD, block.to_rhs(v_QP)))
    whole_QP = torch.linalg.solve(fisher_PP + 0.1 * torch.eye(R * D, dtype=torch.float64), v_QP.T).T
    torch.testing.assert_close(through_columns_QP, whole_QP)


@pytest.mark.parametrize("kind", ["gfim", "gfim_unnormalized", "empirical_fisher", "none"])
def test_a_gradient_survives_the_way_there_and_back(kind: CurvatureKind) -> None:
    block = build_block("w", kind, _chunks(), R, D)
    grad_QP = _gradients().reshape(N, R * D)
    rhs_PK = block.to_rhs(grad_QP)
    assert rhs_PK.shape == (block.operator.size, N * block.rank)
    assert rhs_PK.dtype == torch.float64
    torch.testing.assert_close(block.from_rhs(rhs_PK), grad_QP.double())
    assert block.mean_squared_entry == pytest.approx(float(grad_QP.square().mean()))


def test_the_mean_squared_entry_is_the_mean_eigenvalue_of_both_curvatures() -> None:
    for kind in NORMALIZED:
        block = build_block("w", kind, _chunks(), R, D)
        assert block.operator.trace() / block.operator.size == pytest.approx(block.mean_squared_entry)


def test_a_block_without_gradients_says_so() -> None:
    assert build_block("w", "gfim", [torch.zeros(4, R * D)], R, D).is_zero
    assert not build_block("w", "gfim", _chunks(), R, D).is_zero


@pytest.mark.parametrize("kind", ["gfim", "empirical_fisher", "none"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_names_the_block(kind: CurvatureKind, value: float) -> None:
    grad_NP = torch.zeros(4, R * D)
    grad_NP[2, 3] = value
    with pytest.raises(NonFinite, match=r"layer\.7"):
        build_block("layer.7", kind, [grad_NP], R, D)


def test_refuses_rows_of_another_width() -> None:
    with pytest.raises(ValueError, match="wide"):
        gfim([torch.zeros(4, R * D + 1)], R, D, normalized=True)
