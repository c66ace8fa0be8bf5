from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from ascribe.errors import NonFinite
from worker.curvature.block import CurvatureKind, build_block, load_block, save_block
from worker.curvature.gfim import dense_gfim, sum_shard
from worker.operators import Damped, DenseOperator, RowsOperator
from worker.solvers.cholesky import Cholesky
from worker.solvers.schulz import Schulz
from worker.solvers.solve import solve

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
    operator, _ = dense_gfim((sum_shard(chunk, D) for chunk in _chunks()), R, normalized=normalized)
    matrix_DD = operator.matrix_PP
    torch.testing.assert_close(matrix_DD, expected_DD / (R if normalized else 1))
    assert torch.equal(matrix_DD, matrix_DD.T)


WIDE = 40
"""More columns than the 4 gradients of 3 rows in :func:`_wide` have rows."""


def _wide() -> list[Tensor]:
    """Views into wider rows, as a block's gradients are, in two chunks."""
    grad_NP = torch.randn(4, R * WIDE + 10, generator=Generator().manual_seed(5))
    return [grad_NP[:3, 4 : 4 + R * WIDE], grad_NP[3:, 4 : 4 + R * WIDE]]


@pytest.mark.parametrize("kind", ["gfim", "gfim_unnormalized"])
def test_fewer_stacked_rows_than_columns_stay_rows_of_the_same_matrix(kind: CurvatureKind) -> None:
    grad_NRD = torch.cat(_wide()).reshape(4, R, WIDE).double()
    expected_DD = torch.stack([g_RD.T @ g_RD for g_RD in grad_NRD]).mean(dim=0) / (R if kind == "gfim" else 1)
    block = build_block("w", kind, _wide(), R, WIDE)
    assert isinstance(block.operator, RowsOperator)
    assert (block.operator.count, block.operator.size) == (4 * R, WIDE)
    eye_DD = torch.eye(WIDE, dtype=torch.float64)
    torch.testing.assert_close(block.operator.matmul(eye_DD), expected_DD, rtol=1e-13, atol=1e-13)
    assert block.operator.trace() == pytest.approx(float(expected_DD.trace()), rel=1e-13)

    rhs_PK = block.to_rhs(grad_NRD.reshape(4, R * WIDE)[:2])
    damping = 0.1 * block.mean_squared_entry
    exact_PK = torch.linalg.solve(expected_DD + damping * eye_DD, rhs_PK)
    damped = Damped(block.operator, damping)
    for x_PK in (solve(damped, rhs_PK, Schulz()).x_PK, solve(damped, rhs_PK, Cholesky()).x_PK):
        torch.testing.assert_close(x_PK, exact_PK, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(block.from_rhs(rhs_PK), grad_NRD.reshape(4, R * WIDE)[:2])


def test_as_many_stacked_rows_as_columns_are_a_matrix() -> None:
    assert isinstance(build_block("w", "gfim", _wide(), R, WIDE).operator, RowsOperator)
    square = [torch.randn(4, R * 4 * R, generator=Generator().manual_seed(6))]
    assert isinstance(build_block("w", "gfim", square, R, 4 * R).operator, DenseOperator)


@pytest.mark.parametrize("kind", ["gfim", "gfim_unnormalized", "empirical_fisher", "none"])
@pytest.mark.parametrize("wide", [True, False])
def test_a_block_survives_saving_to_the_last_bit(kind: CurvatureKind, wide: bool) -> None:
    chunks, long_side = (_wide(), WIDE) if wide else (_chunks(), D)
    built = build_block("w", kind, chunks, R, long_side)
    loaded = load_block("w", kind, chunks, R, long_side, save_block(built))
    assert type(loaded.operator) is type(built.operator)
    eye_PP = torch.eye(built.operator.size, dtype=torch.float64)
    assert torch.equal(loaded.operator.matmul(eye_PP), built.operator.matmul(eye_PP))
    assert loaded.operator.trace() == built.operator.trace()
    assert (loaded.rank, loaded.long_side) == (built.rank, built.long_side)
    assert loaded.mean_squared_entry == built.mean_squared_entry


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
        build_block("w", "gfim", [torch.zeros(4, R * D + 1)], R, D)
