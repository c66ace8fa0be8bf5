"""Symmetric matrices known by their products, and the one place where damping enters.

Shapes: ``N`` examples, ``P`` the size of the matrix, ``K`` vectors at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from worker.ticks import tick

_SLAB_BYTES = 32 * 2**20


class Products(Protocol):
    """A symmetric matrix ``[P, P]`` of which nothing but its products is known."""

    @property
    def size(self) -> int: ...

    def matmul(self, x_PK: Tensor) -> Tensor:
        """``A x``, ``[P, K]``."""


class LinearOperator(ABC):
    """A symmetric positive semi-definite matrix ``[P, P]``.

    Products come back in the dtype of the vectors they were given: iterate in float32 where that is enough, and
    measure in float64.
    """

    size: int

    @abstractmethod
    def matmul(self, x_PK: Tensor) -> Tensor:
        """``C x``, ``[P, K]``."""

    @abstractmethod
    def trace(self) -> float:
        """The sum of the eigenvalues, exact."""

    def norm_bound(self) -> float:
        """An upper bound on the largest eigenvalue: the trace, or a smaller norm where one is at hand."""
        return self.trace()


class IdentityOperator(LinearOperator):
    """``I``: what the plain gradient product takes for a curvature."""

    def __init__(self, size: int) -> None:
        self.size = size

    def matmul(self, x_PK: Tensor) -> Tensor:
        return x_PK

    def trace(self) -> float:
        return float(self.size)

    def norm_bound(self) -> float:
        return 1.0


class DenseOperator(LinearOperator):
    """A matrix held in memory, ``[P, P]``, float64."""

    def __init__(self, matrix_PP: Tensor) -> None:
        if matrix_PP.ndim != 2 or matrix_PP.shape[0] != matrix_PP.shape[1]:
            raise ValueError("a dense operator needs a square matrix")
        if matrix_PP.dtype != torch.float64:
            raise ValueError("a dense operator is accumulated in float64, or its damping is no lower bound")
        self.matrix_PP = matrix_PP
        self.size = matrix_PP.shape[0]

    def matmul(self, x_PK: Tensor) -> Tensor:
        return self.matrix_PP.to(x_PK.dtype) @ x_PK

    def trace(self) -> float:
        return float(self.matrix_PP.diagonal().sum())

    def norm_bound(self) -> float:
        """``min(||C||_F, ||C||_inf, tr C)``; each is at least the largest eigenvalue."""
        frobenius = float(torch.linalg.matrix_norm(self.matrix_PP))
        infinity = float(torch.linalg.matrix_norm(self.matrix_PP, ord=math.inf))
        return min(frobenius, infinity, self.trace())


class SampledOperator(LinearOperator):
    """A mean ``C = mean_n C_n`` over ``count`` examples, so that a few of them estimate it without bias.

    Examples are drawn with probability ``p_n = tr C_n / (N tr C)`` and weighted by ``1 / (N p_n)``. Then the estimate
    from a batch has ``E[C_B^2] - C^2 <= (tr C / |B|) C``, whatever the rank of a ``C_n``; drawn uniformly, the largest
    ``tr C_n`` stands in place of the trace, hundreds of times more where gradients have a heavy tail (Needell, Srebro
    & Ward 2014, section 3).
    """

    count: int
    _cumulative_N: Tensor | None = None

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """``tr C_n`` of every example, ``[N]``, float64; computed once. For ``C_n = g g^T`` that is ``||g||^2``."""

    @abstractmethod
    def matmul_sampled(self, x_PK: Tensor, indices: Tensor) -> Tensor:
        """``C_B x``, the weighted mean over a drawn batch, ``[P, K]``; its expectation is ``C x``."""

    def draw(self, batch_size: int, generator: Generator) -> Tensor:
        """Indices of a batch, ``[B]``, drawn independently with the probabilities above."""
        if self._cumulative_N is None:
            self._cumulative_N = self.squared_norms().cumsum(0)
        uniform_B = torch.rand(batch_size, generator=generator, dtype=torch.float64)
        return torch.searchsorted(self._cumulative_N, uniform_B * self._cumulative_N[-1], right=True)

    def trace(self) -> float:
        return float(self.squared_norms().mean())

    def max_squared_norm(self) -> float:
        """The largest ``tr C_n``."""
        return float(self.squared_norms().max())


class RowsOperator(SampledOperator):
    """``C = G^T G / N`` for rows ``G_NP`` that stay where they are, or ``scale`` times that.

    ``chunks`` are ``[n_i, P]``, float32 in practice, and may be strided views into memory-mapped files: every pass
    reads them slab by slab and holds no more than 32 MiB at once. Whoever reads rows, slabs or columns gets them times
    ``sqrt(scale)``: rows of which ``C`` is the mean outer product.

    Args:
        chunks: the rows.
        squared_norm_N: what :meth:`squared_norms` gave before, to save the pass that counts them.
        scale: for rows that count several to an example, as those of the Gauss-Newton Hessian do.
    """

    def __init__(self, chunks: Sequence[Tensor], squared_norm_N: Tensor | None = None, *, scale: float = 1.0) -> None:
        if not chunks or any(chunk.ndim != 2 or chunk.shape[1] != chunks[0].shape[1] for chunk in chunks):
            raise ValueError("a rows operator needs one or more chunks [n, P] of one width")
        self.chunks = tuple(chunks)
        self.size = self.chunks[0].shape[1]
        self._starts = torch.tensor([0, *(chunk.shape[0] for chunk in self.chunks)]).cumsum(0)
        self.count = int(self._starts[-1])
        if self.count == 0:
            raise ValueError("a rows operator needs at least one row")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError("scale must be positive and finite")
        self._scale = scale
        self._squared_norm_N = squared_norm_N

    def slabs(self, dtype: torch.dtype = torch.float64) -> Iterator[Tensor]:
        """The rows in order, as contiguous slabs ``[n, P]`` of bounded size."""
        for slab_nP in self._stored_slabs(dtype):
            yield self._scaled(slab_nP)

    def _scaled(self, rows_nP: Tensor) -> Tensor:
        return rows_nP if self._scale == 1 else rows_nP * math.sqrt(self._scale)

    def _stored_slabs(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """The slabs without the scale: where it can be applied to a result, it costs no pass over the rows."""
        height = max(1, _SLAB_BYTES // (self.size * dtype.itemsize))
        for chunk in self.chunks:
            for start in range(0, chunk.shape[0], height):
                tick()
                yield chunk[start : start + height].to(dtype).contiguous()

    def slabs_with(self, value_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The slabs in float64, each with what ``value_N``, ``[N, ...]``, holds of its rows."""
        start = 0
        for slab_nP in self.slabs():
            yield slab_nP, value_N[start : start + len(slab_nP)]
            start += len(slab_nP)

    def columns(self) -> Iterator[Tensor]:
        """The columns in order, as float64 slabs ``[N, p]`` of bounded size."""
        width = max(1, _SLAB_BYTES // (self.count * 8))
        for start in range(0, self.size, width):
            tick()
            columns_Np = torch.cat([chunk[:, start : start + width].to(torch.float64) for chunk in self.chunks])
            yield self._scaled(columns_Np)

    def rows(self, indices: Tensor) -> Tensor:
        """The rows ``indices``, ``[B, P]``, grouped by chunk: the order is free in ``G_B^T G_B``."""
        return self._scaled(self._stored_rows(indices))

    def _stored_rows(self, indices: Tensor) -> Tensor:
        if len(self.chunks) == 1:
            return self.chunks[0][indices]
        owner_B = torch.bucketize(indices, self._starts[1:], right=True)
        owners = sorted(set(owner_B.tolist()))
        return torch.cat([self.chunks[i][indices[owner_B == i] - self._starts[i]] for i in owners])

    def matmul(self, x_PK: Tensor) -> Tensor:
        y_PK = torch.zeros_like(x_PK)
        for slab_nP in self._stored_slabs(x_PK.dtype):
            y_PK += slab_nP.T @ (slab_nP @ x_PK)
        return y_PK / (self.count / self._scale)

    def matmul_sampled(self, x_PK: Tensor, indices: Tensor) -> Tensor:
        tick()
        rows_BP = self._stored_rows(indices).to(x_PK.dtype)  # the weight takes whatever length they have
        weight_B = self.trace() / rows_BP.square().sum(dim=1) / len(indices)
        return rows_BP.T @ (weight_B[:, None] * (rows_BP @ x_PK))

    def squared_norms(self) -> Tensor:
        if self._squared_norm_N is None:
            stored_N = torch.cat([slab_nP.square().sum(dim=1) for slab_nP in self._stored_slabs(torch.float64)])
            self._squared_norm_N = stored_N * self._scale
        return self._squared_norm_N


@dataclass(frozen=True)
class Damped:
    """``A = C + damping I``. The only place where damping enters; zero is for :class:`IdentityOperator`."""

    operator: LinearOperator
    damping: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.damping) and self.damping >= 0):
            raise ValueError("damping must be finite and not negative")

    @property
    def size(self) -> int:
        return self.operator.size

    def matmul(self, x_PK: Tensor) -> Tensor:
        """``A x``, ``[P, K]``."""
        return torch.add(self.operator.matmul(x_PK), x_PK, alpha=self.damping)

    def upper_bound(self) -> float:
        """A rigorous upper bound on the largest eigenvalue of ``A``."""
        return self.operator.norm_bound() + self.damping

    def condition_bound(self) -> float:
        """An upper bound on the condition number of ``A``, for a positive semi-definite ``C`` and damping > 0."""
        return self.upper_bound() / self.damping
