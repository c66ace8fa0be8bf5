"""Matrices whose eigenvectors are a Kronecker product, and what they are as a preconditioner of a sampled one.

Shapes: a block's gradient is ``[R, D]`` flattened row by row, so ``P = R * D``; ``K`` vectors at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from worker.operators import LinearOperator, SampledOperator
from worker.saved import Saved


class EigenOperator(LinearOperator):
    """``C = Q diag(value) Q^T`` with ``Q = left (x) right``, which is never formed.

    ``left_RR`` and ``right_DD`` are orthogonal and ``value_RD`` is not negative, all float64. For a vector read as a
    matrix ``V`` ``[R, D]``, ``Q^T v`` is ``left^T V right``: two small products in place of one ``R D x R D``.
    """

    def __init__(self, left_RR: Tensor, right_DD: Tensor, value_RD: Tensor) -> None:
        if value_RD.shape != (len(left_RR), len(right_DD)):
            raise ValueError("values are [R, D] for bases [R, R] and [D, D]")
        self.left_RR, self.right_DD, self.value_RD = left_RR, right_DD, value_RD
        self.size = value_RD.numel()

    def coordinates(self, x_KP: Tensor) -> Tensor:
        """``Q^T x`` for every row, ``[K, R, D]``."""
        x_KRD = x_KP.reshape(-1, *self.value_RD.shape)
        rotated_KRD: Tensor = self.left_RR.to(x_KP.dtype).T @ (x_KRD @ self.right_DD.to(x_KP.dtype))
        return rotated_KRD

    def matmul(self, x_PK: Tensor) -> Tensor:
        return self._scale(x_PK, self.value_RD)

    def inverse_matmul(self, x_PK: Tensor, damping: float) -> Tensor:
        """``(C + damping I)^-1 x``, exact, ``[P, K]``; damping > 0."""
        return self._scale(x_PK, 1 / (self.value_RD + damping))

    def inverse_root_matmul(self, x_PK: Tensor, damping: float) -> Tensor:
        """``(C + damping I)^-1/2 x``, exact, ``[P, K]``; damping > 0."""
        return self._scale(x_PK, (self.value_RD + damping).rsqrt())

    def trace(self) -> float:
        return float(self.value_RD.sum())

    def norm_bound(self) -> float:
        """The largest eigenvalue itself."""
        return float(self.value_RD.max())

    def save(self) -> Saved:
        """All there is to it."""
        return Saved({"left_RR": self.left_RR, "right_DD": self.right_DD, "value_RD": self.value_RD})

    @classmethod
    def load(cls, saved: Saved) -> EigenOperator:
        """What :meth:`save` was called on, to the last bit."""
        return cls(saved.tensor("left_RR"), saved.tensor("right_DD"), saved.tensor("value_RD"))

    def _scale(self, x_PK: Tensor, scale_RD: Tensor) -> Tensor:
        """``Q diag(scale) Q^T x``."""
        scaled_KRD = self.coordinates(x_PK.T) * scale_RD.to(x_PK.dtype)
        back_KRD = self.left_RR.to(x_PK.dtype) @ (scaled_KRD @ self.right_DD.to(x_PK.dtype).T)
        return back_KRD.flatten(1).T


class PreconditionedOperator(SampledOperator):
    """A sampled operator that brings an approximate damped inverse, block-diagonal and exact within each block.

    All products are those of ``examples``. ``blocks`` are the approximations in the order of the parameters, one
    after the other; together they are as large as ``examples``.
    """

    def __init__(self, examples: SampledOperator, blocks: Sequence[EigenOperator]) -> None:
        if sum(block.size for block in blocks) != examples.size:
            raise ValueError("the blocks of a preconditioner must cover the operator")
        self.examples, self.blocks = examples, tuple(blocks)
        self.size, self.count = examples.size, examples.count

    def precondition(self, x_PK: Tensor, damping: float) -> Tensor:
        """``P^-1 x`` with ``P = blockdiag(blocks) + damping I``, ``[P, K]``."""
        return torch.cat([block.inverse_matmul(part, damping) for block, part in self._parts(x_PK)])

    def precondition_root(self, x_PK: Tensor, damping: float) -> Tensor:
        """``P^-1/2 x``, the symmetric root, ``[P, K]``."""
        return torch.cat([block.inverse_root_matmul(part, damping) for block, part in self._parts(x_PK)])

    def preconditioner_bound(self) -> float:
        """The largest eigenvalue of the undamped preconditioner."""
        return max(block.norm_bound() for block in self.blocks)

    def _parts(self, x_PK: Tensor) -> zip[tuple[EigenOperator, Tensor]]:
        return zip(self.blocks, torch.split(x_PK, [block.size for block in self.blocks]), strict=True)

    def matmul(self, x_PK: Tensor) -> Tensor:
        return self.examples.matmul(x_PK)

    def squared_norms(self) -> Tensor:
        return self.examples.squared_norms()

    def draw(self, batch_size: int, generator: Generator) -> Tensor:
        return self.examples.draw(batch_size, generator)

    def matmul_sampled(self, x_PK: Tensor, indices: Tensor) -> Tensor:
        return self.examples.matmul_sampled(x_PK, indices)

    def max_squared_norm(self) -> float:
        return self.examples.max_squared_norm()

    def trace(self) -> float:
        return self.examples.trace()

    def norm_bound(self) -> float:
        return self.examples.norm_bound()
