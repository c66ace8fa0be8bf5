"""Influence scores: how much up-weighting a training example lowers the loss of a validation example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ascribe.errors import NonFinite

TOLERANCE = 3e-6
"""The largest relative error of a validation row's scores that float32 products may leave."""

_ROWS, _COLUMNS = 256, 1024  # of a tile: fewer are slower, and more columns summed in float32 are less accurate
_CHECKED = 32


def influence(chunks: Sequence[Tensor], ihvp_QP: Tensor, name: str) -> Tensor:
    """``score_QN = ihvp_q . g_n``, float32: positive for a proponent (helpful), negative for an opponent.

    ``chunks`` are training gradients ``[n_i, P]``; ``ihvp_QP`` is ``(C + damping I)^-1 g_q`` for each validation row,
    and for their mean where the caller appended it.

    The inverse turns ``g_q`` away from the directions in which gradients are large, so most of each sum cancels. Terms
    are multiplied in float32, which is bound by memory, and summed in float64 over slices of columns: on real gradients
    1e-9 times ``||ihvp_q|| ||g_n||`` is lost. How much that is of the scores is measured on every 32nd row, and where
    it is more than :data:`TOLERANCE` of any validation row's, the tile is multiplied in float64.

    Raises:
        NonFinite: if a score is not finite; ``name`` says which block, or blocks, the columns belong to.
    """
    tiles = [tile_nP for chunk in chunks for tile_nP in torch.split(chunk, _ROWS)]
    single_QP = ihvp_QP.to(torch.float32)
    score_QN = torch.cat([_tile(tile_nP, ihvp_QP, single_QP) for tile_nP in tiles], dim=1).to(torch.float32)
    if not bool(score_QN.isfinite().all()):
        raise NonFinite(f"An influence score of {name} is not finite: check its gradients, or raise the damping.")
    return score_QN


def score_shard(grad_nP: Tensor, sides: Sequence[Tensor]) -> list[Tensor]:
    """A ``score_Qn`` for each of ``sides``, the left-hand sides ``[Q, P]`` of all blocks. Raises NonFinite."""
    return [influence([grad_nP], side_QP, "all blocks") for side_QP in sides]


def _tile(grad_nP: Tensor, ihvp_QP: Tensor, single_QP: Tensor) -> Tensor:
    """Scores ``[Q, n]``, float64, from float32 products where a sample of them is accurate enough."""
    score_Qn = _multiply(single_QP, grad_nP)
    exact_QM = _multiply(ihvp_QP, grad_nP[::_CHECKED])
    error_Q = (score_Qn[:, ::_CHECKED] - exact_QM).norm(dim=1)
    # Not the other way round: an error that is not a number is not small either.
    accurate = bool((error_Q <= TOLERANCE * exact_QM.norm(dim=1)).all())
    return score_Qn if accurate else _multiply(ihvp_QP, grad_nP)


def _multiply(ihvp_QP: Tensor, grad_nP: Tensor) -> Tensor:
    """``ihvp grad^T`` with products in the dtype of ``ihvp_QP``, summed over slices of columns in float64."""
    score_Qn = torch.zeros(len(ihvp_QP), len(grad_nP), dtype=torch.float64)
    for ihvp_Qp, grad_np in zip(*(torch.split(x, _COLUMNS, dim=1) for x in (ihvp_QP, grad_nP)), strict=True):
        score_Qn += ihvp_Qp @ grad_np.to(ihvp_QP.dtype).T
    return score_Qn
