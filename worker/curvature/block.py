"""One block: a parameter tensor's curvature, and how its gradients become right-hand sides.

Both curvatures act on columns. GFIM is ``D x D`` and a gradient ``[R, D]`` is ``R`` columns of it; the empirical
Fisher is ``P x P`` and a gradient is one column, which is the same rule with ``R = 1`` and ``D = P``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascribe.errors import NonFinite
from worker.curvature.fisher import empirical_fisher
from worker.curvature.gfim import ShardSums, dense_gfim, is_dense, stacked_gfim, sum_shard
from worker.operators import DenseOperator, IdentityOperator, LinearOperator, RowsOperator
from worker.saved import Saved

CurvatureKind = Literal["gfim", "gfim_unnormalized", "empirical_fisher", "none"]


@dataclass(frozen=True)
class CurvatureBlock:
    """The curvature of one parameter tensor, acting on ``long_side`` numbers, ``rank`` columns a gradient."""

    name: str
    operator: LinearOperator
    rank: int
    long_side: int
    mean_squared_entry: float
    """Mean over examples and entries of the squared gradient; ``relative`` damping is a multiple of it."""

    @property
    def is_zero(self) -> bool:
        """Every gradient of the block is zero: there is nothing to damp, solve or score."""
        return self.mean_squared_entry == 0.0

    def to_rhs(self, grad_QP: Tensor) -> Tensor:
        """Gradients ``[Q, R * D]`` as right-hand sides ``[D, Q * R]`` in float64."""
        return grad_QP.to(torch.float64).reshape(-1, self.long_side).T

    def from_rhs(self, x_PK: Tensor) -> Tensor:
        """Columns ``[D, Q * R]`` as gradients ``[Q, R * D]``; the inverse of :meth:`to_rhs`."""
        return x_PK.T.reshape(-1, self.rank * self.long_side)


def build_block(name: str, kind: CurvatureKind, chunks: Sequence[Tensor], rank: int, long_side: int) -> CurvatureBlock:
    """The block ``name`` from its per-example gradients.

    ``chunks`` are ``[n_i, rank * long_side]``, a shard each: each row one flattened gradient, the shorter side first.

    Raises:
        NonFinite: if a gradient of the block is not finite, or so large that its square is not.
        ValueError: if the rows are not ``rank * long_side`` wide.
    """
    rows = RowsOperator(chunks)
    if rows.size != rank * long_side:
        raise ValueError("gradient rows are not rank * long_side wide")
    operator: LinearOperator
    match kind:
        case "gfim" | "gfim_unnormalized":
            normalized = kind == "gfim"
            if is_dense(rows.count, rank, long_side):
                sums = (sum_shard(chunk, long_side) for chunk in chunks)
                return build_dense_block(name, sums, rank, long_side, normalized=normalized)
            operator = stacked_gfim(chunks, rank, long_side, normalized=normalized)
            return CurvatureBlock(
                name, operator, rank, long_side, _mean_squared_entry(name, rows.squared_norms(), rows.size)
            )
        case "empirical_fisher":
            operator = empirical_fisher(chunks, rows.squared_norms())
        case "none":
            operator = IdentityOperator(rows.size)
    return CurvatureBlock(name, operator, 1, rows.size, _mean_squared_entry(name, rows.squared_norms(), rows.size))


def build_dense_block(
    name: str, sums: Iterable[ShardSums], rank: int, long_side: int, *, normalized: bool
) -> CurvatureBlock:
    """The same block of a dense GFIM from what is known of every shard, in order. Raises NonFinite."""
    operator, squared_norm_N = dense_gfim(sums, rank, normalized=normalized)
    mean_squared = _mean_squared_entry(name, squared_norm_N, rank * long_side)
    return CurvatureBlock(name, operator, rank, long_side, mean_squared)


def build_summed_block(name: str, kind: CurvatureKind, sums: ShardSums, rank: int, long_side: int) -> CurvatureBlock:
    """The same block of a dense GFIM, or of no curvature, from what is known of all rows. Raises NonFinite."""
    if kind == "none":
        size = rank * long_side
        mean_squared = _mean_squared_entry(name, sums.squared_norm_n, size)
        return CurvatureBlock(name, IdentityOperator(size), 1, size, mean_squared)
    return build_dense_block(name, [sums], rank, long_side, normalized=kind == "gfim")


def mean_squared_entry(name: str, chunks: Sequence[Tensor]) -> float:
    """Over the rows and columns of ``chunks``. Raises NonFinite: a gradient is not finite, or its square is not."""
    rows = RowsOperator(chunks)
    return _mean_squared_entry(name, rows.squared_norms(), rows.size)


def _mean_squared_entry(name: str, squared_norm_N: Tensor, size: int) -> float:
    mean_squared = float(squared_norm_N.mean()) / size
    if not math.isfinite(mean_squared):
        raise NonFinite(f"The curvature of block {name} is not finite: check its gradients.")
    return mean_squared


def save_block(block: CurvatureBlock) -> Saved:
    """What a pass over the gradients found out about the block."""
    facts = {"mean_squared_entry": block.mean_squared_entry}
    match block.operator:
        case DenseOperator(matrix_PP=matrix_PP):
            return Saved({"matrix_PP": matrix_PP}, facts)
        case RowsOperator() as rows:
            return Saved({"squared_norm_N": rows.squared_norms()}, facts)
        case _:
            return Saved(facts=facts)


def load_block(
    name: str, kind: CurvatureKind, chunks: Sequence[Tensor], rank: int, long_side: int, saved: Saved
) -> CurvatureBlock:
    """What :func:`build_block` made of the same gradients, to the last bit, without a pass over them."""
    mean_squared = float(saved.facts["mean_squared_entry"])
    operator: LinearOperator
    match kind:
        case "gfim" | "gfim_unnormalized":
            if "matrix_PP" in saved.tensors:
                operator = DenseOperator(saved.tensor("matrix_PP"))
            else:
                norms = saved.tensor("squared_norm_N")
                operator = stacked_gfim(chunks, rank, long_side, normalized=kind == "gfim", squared_norm_M=norms)
            return CurvatureBlock(name, operator, rank, long_side, mean_squared)
        case "empirical_fisher":
            operator = empirical_fisher(chunks, saved.tensor("squared_norm_N"))
        case "none":
            operator = IdentityOperator(rank * long_side)
    return CurvatureBlock(name, operator, 1, rank * long_side, mean_squared)
