"""The generalized Fisher information matrix of HyperINF (arXiv 2410.05090, equation 5).

For gradients ``G_n`` of one matrix parameter, ``[R, D]``: if their rows are independent with zero mean, then
``E[vec(G) vec(G)^T] = I_R (x) GFIM`` with ``GFIM = E[G^T G] / R``, so one ``D x D`` matrix serves the whole
``R D x R D`` Fisher block. The authors' released code leaves the ``1/R`` out, which matters against the damping.

The dense matrix is a sum over shards of sums over their rows, in the shards' order: its bits are the same whoever
summed a shard, and wherever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.operators import DenseOperator, RowsOperator


@dataclass(frozen=True, slots=True)
class ShardSums:
    """Of one block's gradients in one shard: ``sum_n G_n^T G_n``, ``[D, D]``, and ``||G_n||^2``, ``[n]``; float64."""

    matrix_DD: Tensor
    squared_norm_n: Tensor


def is_dense(rows: int, rank: int, long_side: int) -> bool:
    """Whether GFIM is held as a matrix: where all ``G_n`` together have fewer rows than it, they are the smaller way,
    and a solver then works on their Gram matrix."""
    return rows * rank >= long_side


def sum_shard(grad_nP: Tensor, long_side: int) -> ShardSums:
    """The sums of a shard's gradients ``[n, R * D]``, rank first."""
    matrix_DD = grad_nP.new_zeros(long_side, long_side, dtype=torch.float64)
    norms = []
    for slab_nP in RowsOperator([grad_nP]).slabs():
        norms.append(slab_nP.square().sum(dim=1))
        rows_MD = slab_nP.reshape(-1, long_side)
        matrix_DD.addmm_(rows_MD.T, rows_MD)
    return ShardSums(matrix_DD, torch.cat(norms))


def dense_gfim(sums: Iterable[ShardSums], rank: int, *, normalized: bool) -> tuple[DenseOperator, Tensor]:
    """``mean_n(G_n^T G_n) / R``, or without the ``1/R``, as a ``[D, D]`` operator in float64, and all ``||G_n||^2``.

    ``sums`` are one or more shards' in order; one at a time is held.
    """
    matrix_DD: Tensor | None = None
    norms = []
    for shard in sums:
        matrix_DD = torch.zeros_like(shard.matrix_DD) if matrix_DD is None else matrix_DD
        matrix_DD += shard.matrix_DD
        norms.append(shard.squared_norm_n)
    assert matrix_DD is not None
    squared_norm_N = torch.cat(norms)
    # A product of two transposes need not round to a symmetric matrix, and the solvers assume one.
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    return DenseOperator(matrix_DD / (len(squared_norm_N) * (rank if normalized else 1))), squared_norm_N


def stacked_gfim(
    chunks: Sequence[Tensor], rank: int, long_side: int, *, normalized: bool, squared_norm_M: Tensor | None = None
) -> RowsOperator:
    """The same matrix by its rows, those of all ``G_n``; ``chunks`` are ``[n_i, R * D]``.

    The mean over ``N R`` rows has the ``1/R`` in it; without, every row is longer by ``sqrt R``, in float64.
    ``squared_norm_M`` is ``||row||^2`` of that operator's rows, where it is known already.
    """
    stacked = [chunk.reshape(-1, long_side) for chunk in chunks]
    if not normalized:
        stacked = [rows_MD.to(torch.float64) * math.sqrt(rank) for rows_MD in stacked]
    return RowsOperator(stacked, squared_norm_M)
