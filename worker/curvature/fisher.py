"""The empirical Fisher matrix of one block: ``mean_n(g_n g_n^T)`` with the true labels.

Not the Fisher matrix: its labels are the data's, not the model's own (Kunstner et al. 2019, arXiv 1905.12558).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from worker.operators import RowsOperator


def empirical_fisher(chunks: Sequence[Tensor], squared_norm_N: Tensor | None = None) -> RowsOperator:
    """``G^T G / N`` as products with the rows themselves; ``chunks`` are ``[n_i, P]``.

    ``squared_norm_N`` is ``||g_n||^2`` of every row in float64, where that is known already.
    """
    return RowsOperator(chunks, squared_norm_N)
