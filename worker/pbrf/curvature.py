"""The Gauss-Newton Hessian of all selected parameters at once, from rows: the optimiser's metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ascribe.errors import LimitExceeded
from ascribe.sources.checkpoints import BlockShape
from worker.data import Batch
from worker.gradients.cotangents import Cotangent, OfGaussNewton
from worker.gradients.per_example import PerExampleGradients
from worker.operators import DenseOperator, LinearOperator, RowsOperator
from worker.solvers.cholesky import Cholesky
from worker.ticks import tick


def gradient_rows(
    model: nn.Module, blocks: Sequence[BlockShape], batches: Sequence[Batch], of: Cotangent | None = None
) -> Tensor:
    """Per-example gradients of the loss, or of what ``of`` says, ``[N, P]`` float32, in memory."""
    gradients = PerExampleGradients(model, blocks, of)
    parts = []
    for batch in batches:
        tick()
        parts.append(gradients(batch)[1])
    order_N = torch.tensor([position for batch in batches for position in batch.positions]).argsort()
    return torch.cat(parts)[order_N.to(parts[0].device)]


def gauss_newton_rows(model: nn.Module, blocks: Sequence[BlockShape], batches: Sequence[Batch]) -> RowsOperator:
    """``G`` as the second moment of ``N (C - 1)`` rows, scaled so that their mean is the mean over the examples.

    Raises:
        LimitExceeded: the rows and their entries are both too many to factor ``G`` or the rows' Gram matrix.
        UnsupportedModel: a block is not the weight or bias of a Linear layer.
    """
    with torch.no_grad():
        components = model(**batches[0].inputs).logits.shape[1] - 1
    count = components * sum(len(batch.positions) for batch in batches)
    side, limit = min(count, sum(block.size for block in blocks)), Cholesky().max_size
    if side > limit:
        raise LimitExceeded(
            f"the PBRF check would factor a matrix of {side} x {side}; its limit is {limit}. Use fewer train rows, or "
            "select fewer parameters."
        )
    chunks = [gradient_rows(model, blocks, batches, OfGaussNewton(component)) for component in range(components)]
    return RowsOperator([chunk.mul_(math.sqrt(components)) for chunk in chunks])


def smaller_form(rows: RowsOperator) -> LinearOperator:
    """The matrix itself where it has no more entries than the rows, else the rows."""
    if rows.size > rows.count:
        return rows
    matrix_PP = rows.chunks[0].new_zeros(rows.size, rows.size, dtype=torch.float64)
    for slab_nP in rows.slabs():
        matrix_PP.addmm_(slab_nP.T, slab_nP)
    return DenseOperator((matrix_PP + matrix_PP.T) / (2 * rows.count))
