"""The empirical Fisher matrix of one block: ``mean_n(g_n g_n^T)`` with the true labels.

Not the Fisher matrix: its labels are the data's, not the model's own (Kunstner et al. 2019, arXiv 1905.12558).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from worker.operators import RowsOperator


def empirical_fisher(chunks: Sequence[Tensor]) -> RowsOperator:
    """``G^T G / N`` as products with the rows themselves; ``chunks`` are ``[n_i, P]``."""
    return RowsOperator(chunks)
