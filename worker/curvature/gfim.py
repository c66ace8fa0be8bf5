"""The generalized Fisher information matrix of HyperINF (arXiv 2410.05090, equation 5).

For gradients ``G_n`` of one matrix parameter, ``[R, D]``: if their rows are independent with zero mean, then
``E[vec(G) vec(G)^T] = I_R (x) GFIM`` with ``GFIM = E[G^T G] / R``, so one ``D x D`` matrix serves the whole
``R D x R D`` Fisher block. The authors' released code leaves the ``1/R`` out, which matters against the damping.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.operators import DenseOperator, RowsOperator


def gfim(chunks: Sequence[Tensor], rank: int, long_side: int, *, normalized: bool) -> DenseOperator:
    """``mean_n(G_n^T G_n) / R``, or without the ``1/R``, as a ``[D, D]`` operator in float64.

    ``chunks`` are ``[n_i, R * D]``: each row one flattened gradient, rank first.

    Raises:
        ValueError: if the rows are not ``rank * long_side`` wide.
    """
    rows = RowsOperator(chunks)
    if rows.size != rank * long_side:
        raise ValueError("gradient rows are not rank * long_side wide")
    matrix_DD = torch.zeros(long_side, long_side, dtype=torch.float64)
    for slab_nP in rows.slabs():
        rows_MD = slab_nP.reshape(-1, long_side)
        matrix_DD.addmm_(rows_MD.T, rows_MD)
    # A product of two transposes need not round to a symmetric matrix, and the solvers assume one.
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    return DenseOperator(matrix_DD / (rows.count * (rank if normalized else 1)))
