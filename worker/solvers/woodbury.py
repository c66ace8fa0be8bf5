"""The smaller of two equivalent dense systems behind ``A x = v``.

For ``C = G^T G / N`` with no more rows than columns the Woodbury identity moves the work to the ``N x N`` Gram matrix:
``(C + lambda I)^-1 v = (v - G^T (G G^T + N lambda I)^-1 G v) / lambda``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worker.operators import Damped, DenseOperator, RowsOperator


def few_rows(operator: Damped) -> RowsOperator | None:
    """The rows behind the matrix, where there are so few that their Gram matrix is the smaller one."""
    rows = operator.operator
    return rows if isinstance(rows, RowsOperator) and rows.count <= rows.size else None


def system_size(operator: Damped) -> int:
    """The side of the matrix that :func:`dense_system` writes out, without writing it out.

    Raises:
        TypeError: if the operator is neither a :class:`DenseOperator` nor a :class:`RowsOperator`.
    """
    match operator.operator:
        case DenseOperator(size=size):
            return size
        case RowsOperator() as rows:
            return min(rows.count, rows.size)
        case other:
            raise TypeError(f"this solver takes a DenseOperator or a RowsOperator, not a {type(other).__name__}")


def dense_system(operator: Damped) -> Damped:
    """``A`` over a :class:`DenseOperator`; for few rows ``G G^T + N lambda I``. Raises TypeError as above."""
    system_size(operator)
    match operator.operator:
        case RowsOperator() as rows if few_rows(operator) is not None:
            return Damped(DenseOperator(_gram(rows)), rows.count * operator.damping)
        case RowsOperator() as rows:
            return Damped(DenseOperator(second_moment(rows)), operator.damping)
        case _:
            return operator


def solve_through(operator: Damped, solve_system: Callable[[Tensor], Tensor], rhs_PK: Tensor) -> Tensor:
    """``A^-1 v``, ``[P, K]``, given ``solve_system``, which solves with :func:`dense_system`."""
    rows = few_rows(operator)
    if rows is None:
        return solve_system(rhs_PK)
    weight_NK = solve_system(times_rows(rows, rhs_PK))
    return (rhs_PK - _times_rows_transposed(rows, weight_NK)) / operator.damping


def times_rows(rows: RowsOperator, x_PK: Tensor) -> Tensor:
    """``G x``, ``[N, K]``."""
    return torch.cat([slab_nP @ x_PK for slab_nP in rows.slabs()])


def second_moment(rows: RowsOperator) -> Tensor:
    """``G^T G / N``, ``[P, P]``, float64."""
    matrix_PP = rows.chunks[0].new_zeros(rows.size, rows.size, dtype=torch.float64)
    for slab_nP in rows.slabs():
        matrix_PP.addmm_(slab_nP.T, slab_nP)
    return matrix_PP / rows.count


def _gram(rows: RowsOperator) -> Tensor:
    gram_NN = rows.chunks[0].new_zeros(rows.count, rows.count, dtype=torch.float64)
    for columns_Np in rows.columns():
        gram_NN.addmm_(columns_Np, columns_Np.T)
    return gram_NN


def _times_rows_transposed(rows: RowsOperator, weight_NK: Tensor) -> Tensor:
    """``G^T w``, ``[P, K]``."""
    y_PK = weight_NK.new_zeros(rows.size, weight_NK.shape[1])
    for slab_nP, weight_nK in rows.slabs_with(weight_NK):
        y_PK += slab_nP.T @ weight_nK
    return y_PK
