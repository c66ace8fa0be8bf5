from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from worker.eigen_operators import EigenOperator, PreconditionedOperator
from worker.operators import Damped, RowsOperator
from worker.solvers.eigenbasis import Eigenbasis
from worker.solvers.solve import solve


def _orthonormal(size: int, generator: Generator) -> Tensor:
    basis: Tensor
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return basis


def _eigen(rank: int, long_side: int, seed: int = 0) -> EigenOperator:
    generator = Generator().manual_seed(seed)
    value_RD = torch.rand(rank, long_side, dtype=torch.float64, generator=generator)
    return EigenOperator(_orthonormal(rank, generator), _orthonormal(long_side, generator), value_RD)


def test_it_says_what_its_residual_is_against() -> None:
    rhs_PK = torch.randn(12, 2, dtype=torch.float64, generator=Generator().manual_seed(1))
    solution = solve(Damped(_eigen(3, 4), 1e-6), rhs_PK, Eigenbasis())
    assert float(solution.relative_residual_K.max()) < 1e-9
    assert "approximates" in solution.stats.notes[0]


def test_a_preconditioner_is_the_damped_inverse_of_its_blocks_one_after_the_other() -> None:
    blocks = [_eigen(2, 3), _eigen(1, 4, seed=1)]
    generator = Generator().manual_seed(2)
    rows = RowsOperator([torch.randn(20, 10, dtype=torch.float64, generator=generator)])
    operator = PreconditionedOperator(rows, blocks)
    identity_PP = torch.eye(10, dtype=torch.float64)
    dense_PP = torch.zeros(10, 10, dtype=torch.float64)
    dense_PP[:6, :6] = blocks[0].matmul(torch.eye(6, dtype=torch.float64))
    dense_PP[6:, 6:] = blocks[1].matmul(torch.eye(4, dtype=torch.float64))
    inverse_PP = torch.linalg.inv(dense_PP + 0.2 * identity_PP)
    torch.testing.assert_close(operator.precondition(identity_PP, 0.2), inverse_PP)
    root_PP = operator.precondition_root(identity_PP, 0.2)
    torch.testing.assert_close(root_PP @ root_PP, inverse_PP)
    assert operator.preconditioner_bound() == pytest.approx(float(torch.linalg.eigvalsh(dense_PP)[-1]))


def test_its_products_and_batches_are_those_of_the_rows() -> None:
    generator = Generator().manual_seed(2)
    rows = RowsOperator([torch.randn(20, 10, dtype=torch.float64, generator=generator)])
    operator = PreconditionedOperator(rows, [_eigen(2, 5)])
    x_PK = torch.randn(10, 2, dtype=torch.float64, generator=generator)
    assert torch.equal(operator.matmul(x_PK), rows.matmul(x_PK))
    indices, same = (o.draw(7, Generator().manual_seed(3)) for o in (operator, rows))
    assert torch.equal(indices, same)
    assert torch.equal(operator.matmul_sampled(x_PK, indices), rows.matmul_sampled(x_PK, indices))
    for measure in ("trace", "norm_bound", "max_squared_norm"):
        assert getattr(operator, measure)() == getattr(rows, measure)()


def test_blocks_that_do_not_cover_the_operator_are_refused() -> None:
    with pytest.raises(ValueError, match="cover"):
        PreconditionedOperator(RowsOperator([torch.ones(3, 10)]), [_eigen(2, 3)])
