"""Self-influence: the score of a training example with itself, high for the atypical and the mislabelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ascribe.errors import NonFinite
from worker.curvature.block import CurvatureBlock
from worker.operators import RowsOperator
from worker.solvers.base import Solver

StateT = TypeVar("StateT")


def self_influence(chunks: Sequence[Tensor], block: CurvatureBlock, solver: Solver[StateT], state: StateT) -> Tensor:
    """One block's ``g_n^T (C + damping I)^-1 g_n``, ``[N]``, float64; add the blocks up.

    ``chunks`` are the block's training gradients ``[n_i, R * D]``, and ``state`` is what ``solver.init`` returned.

    Raises:
        NonFinite: if a score is not finite.
    """
    score_N = torch.cat(
        [
            solver.quadratic(state, block.to_rhs(slab_nP)).reshape(-1, block.rank).sum(dim=1)
            for slab_nP in RowsOperator(chunks).slabs()
        ]
    )
    if not bool(score_N.isfinite().all()):
        raise NonFinite(f"A self-influence score of block {block.name} is not finite: raise the damping.")
    return score_N
