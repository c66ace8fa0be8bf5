"""EK-FAC: K-FAC's eigenbasis with the best eigenvalues for it (George et al. 2018, arXiv 1806.03884, section 3).

``value_rd = mean_n (Q_left^T G_n Q_right)_rd^2`` is the diagonal of the second moment in that basis, and so the one
diagonal that brings ``Q diag(value) Q^T`` closest to it in Frobenius norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.eigen_operators import EigenOperator
from worker.operators import RowsOperator


def ekfac(basis: EigenOperator, chunks: Sequence[Tensor], examples: int) -> EigenOperator:
    """``basis`` with its eigenvalues corrected by the block's per-example gradients.

    ``chunks`` are ``[n_i, R * D]``, of the model's sampled labels; or of every Gauss-Newton component, one after the
    other. Their sum of squares is divided by ``examples``, the number of rows of the dataset.

    Raises:
        ValueError: if the gradients are not as wide as the basis.
    """
    rows = RowsOperator(chunks)
    if rows.size != basis.size:
        raise ValueError("gradient rows are not as wide as the basis")
    value_RD = torch.zeros_like(basis.value_RD)
    for slab_nP in rows.slabs():
        value_RD += basis.coordinates(slab_nP).square().sum(dim=0)
    return EigenOperator(basis.left_RR, basis.right_DD, value_RD / examples)
