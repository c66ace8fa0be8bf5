"""Influence scores: how much up-weighting a training example lowers the loss of a validation example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ascribe.errors import NonFinite
from worker.operators import RowsOperator


def influence(chunks: Sequence[Tensor], ihvp_QP: Tensor, name: str) -> Tensor:
    """``score_QN = ihvp_q . g_n``, float32: positive for a proponent (helpful), negative for an opponent.

    ``chunks`` are training gradients ``[n_i, P]``; ``ihvp_QP`` is ``(C + damping I)^-1 g_q`` for each validation row,
    and for their mean where the caller appended it. Products are summed in float64: the inverse turns ``g_q`` away
    from the directions in which gradients are large, so that most of each sum cancels.

    Raises:
        NonFinite: if a score is not finite; ``name`` says which block, or blocks, the columns belong to.
    """
    score_QN = torch.cat([ihvp_QP @ slab_nP.T for slab_nP in RowsOperator(chunks).slabs()], dim=1).to(torch.float32)
    if not bool(score_QN.isfinite().all()):
        raise NonFinite(f"An influence score of {name} is not finite: check its gradients, or raise the damping.")
    return score_QN
