"""The generalized Fisher information matrix of HyperINF (arXiv 2410.05090, equation 5).

For gradients ``G_n`` of one matrix parameter, ``[R, D]``: if their rows are independent with zero mean, then
``E[vec(G) vec(G)^T] = I_R (x) GFIM`` with ``GFIM = E[G^T G] / R``, so one ``D x D`` matrix serves the whole
``R D x R D`` Fisher block. The authors' released code leaves the ``1/R`` out, which matters against the damping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worker.operators import DenseOperator, RowsOperator


def gfim(
    chunks: Sequence[Tensor],
    rank: int,
    long_side: int,
    *,
    normalized: bool,
    squared_norm_M: Tensor | None = None,
) -> DenseOperator | RowsOperator:
    """``mean_n(G_n^T G_n) / R``, or without the ``1/R``, as a ``[D, D]`` operator in float64.

    Where the ``M = N R`` rows of all ``G_n`` are fewer than ``D``, they are the smaller way to hold it: a solver then
    works on their Gram matrix. ``chunks`` are ``[n_i, R * D]``: each row one flattened gradient, rank first.
    ``squared_norm_M`` is ``||row||^2`` of that operator's rows, where it is known already.

    Raises:
        ValueError: if the rows are not ``rank * long_side`` wide.
    """
    rows = RowsOperator(chunks)
    if rows.size != rank * long_side:
        raise ValueError("gradient rows are not rank * long_side wide")
    if rows.count * rank < long_side:
        return _stacked(chunks, rank, long_side, normalized, squared_norm_M)
    matrix_DD = rows.chunks[0].new_zeros(long_side, long_side, dtype=torch.float64)
    for slab_nP in rows.slabs():
        rows_MD = slab_nP.reshape(-1, long_side)
        matrix_DD.addmm_(rows_MD.T, rows_MD)
    # A product of two transposes need not round to a symmetric matrix, and the solvers assume one.
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    return DenseOperator(matrix_DD / (rows.count * (rank if normalized else 1)))


def _stacked(
    chunks: Sequence[Tensor], rank: int, long_side: int, normalized: bool, squared_norm_M: Tensor | None
) -> RowsOperator:
    """The mean over ``N R`` rows has the ``1/R`` in it; without, every row is longer by ``sqrt R``, in float64."""
    stacked = [chunk.reshape(-1, long_side) for chunk in chunks]
    if not normalized:
        stacked = [rows_MD.to(torch.float64) * math.sqrt(rank) for rows_MD in stacked]
    return RowsOperator(stacked, squared_norm_M)
