"""What is differentiated: the vector that is pulled back from the logits to the parameters, one for every row.

A per-example gradient is ``J_n^T c_n`` with the logits' Jacobian ``J_n`` ``[C, P]`` and a cotangent ``c_n`` ``[C]``.
The cotangent alone decides what the gradient is of: the loss, the model's own labels, or a square root of the
Gauss-Newton Hessian. Cotangents are formed in float64, where ``p - 1`` of a sure row still has digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Cotangent(Protocol):
    """``key`` stands in the fingerprint of what is cached: two cotangents of one key are the same function."""

    @property
    def key(self) -> str: ...

    def __call__(self, logits_NC: Tensor, labels_N: Tensor, rows: Sequence[int], /) -> Tensor:
        """``c_NC`` float64 from float64 logits; ``rows`` are the rows' places in their dataset."""


@dataclass(frozen=True)
class OfLoss:
    """The gradient of the cross-entropy with the given label: ``p - e_y``."""

    key: str = "loss"

    def __call__(self, logits_NC: Tensor, labels_N: Tensor, _rows: Sequence[int], /) -> Tensor:
        return _residual(logits_NC, labels_N)


@dataclass(frozen=True)
class OfSampledLabel:
    """The gradient of the cross-entropy with a label drawn from the model: its second moment is the true Fisher matrix.

    What a row draws depends on the seed and the row's place alone, not on the batch it stands in.
    """

    seed: int

    @property
    def key(self) -> str:
        return f"sampled_label/{self.seed}"

    def __call__(self, logits_NC: Tensor, _labels_N: Tensor, rows: Sequence[int], /) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        uniform_N = torch.rand(max(rows) + 1, generator=generator, dtype=torch.float64)[list(rows)]
        cumulative_NC = logits_NC.softmax(1).cumsum(1)
        sampled_N = (uniform_N.to(logits_NC.device)[:, None] > cumulative_NC).sum(1)
        return _residual(logits_NC, sampled_N.clamp(max=logits_NC.shape[1] - 1))


@dataclass(frozen=True)
class OfGaussNewton:
    """Column ``component`` of ``S`` ``[C, C - 1]`` with ``S S^T = diag(p) - p p^T``, the loss's Hessian in the logits.

    So ``sum_k (J^T s_k)(J^T s_k)^T`` is the row's Gauss-Newton Hessian, exactly and without a label. With
    ``q = sqrt(p)`` of unit length, that is ``diag(q) (I - q q^T) diag(q)``, and the columns after the first
    of the Householder reflection that takes ``q`` to a coordinate axis span what is orthogonal to ``q``.
    """

    component: int

    @property
    def key(self) -> str:
        return f"gauss_newton/{self.component}"

    def __call__(self, logits_NC: Tensor, _labels_N: Tensor, _rows: Sequence[int], /) -> Tensor:
        root_NC = logits_NC.softmax(1).sqrt()
        # The axis is the largest entry's: the reflection vector then has no cancellation, and the order of the other
        # axes is any order.
        axis_N = root_NC.argmax(1)
        axis_NC = torch.nn.functional.one_hot(axis_N, root_NC.shape[1]).to(root_NC.dtype)
        mirror_NC = root_NC + axis_NC
        # The component-th axis that is not the row's own.
        other_N = self.component + (axis_N <= self.component).long()
        other_NC = torch.nn.functional.one_hot(other_N, root_NC.shape[1]).to(root_NC.dtype)
        along_N1 = (mirror_NC * other_NC).sum(1, keepdim=True) / (1 + root_NC.gather(1, axis_N[:, None]))
        return root_NC * (other_NC - along_N1 * mirror_NC)


def cotangent_of(key: str) -> Cotangent:
    """The cotangent of this key. Raises ValueError: there is none."""
    match key.split("/"):
        case ["loss"]:
            return OfLoss()
        case ["sampled_label", seed]:
            return OfSampledLabel(int(seed))
        case ["gauss_newton", component]:
            return OfGaussNewton(int(component))
    raise ValueError(f"no cotangent has the key {key!r}")


def _residual(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """``p - e_y``. The label's own entry is minus the sum of the others: it keeps its digits near ``p_y = 1``."""
    residual_NC = logits_NC.softmax(1).scatter(1, labels_N[:, None], 0.0)
    return residual_NC.scatter(1, labels_N[:, None], -residual_NC.sum(1, keepdim=True))
