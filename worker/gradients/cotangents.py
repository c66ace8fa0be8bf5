"""What is differentiated: the vector that is pulled back from the logits to the parameters, one for every prediction.

A per-example gradient is ``J_n^T c_n`` with the logits' Jacobian ``J_n`` ``[C, P]`` and a cotangent ``c_n`` ``[C]``. A
language model's row has ``T`` predictions, and its loss is their mean: its gradient is ``sum_t J_t^T w c_t`` with
``w = 1/T``, and ``w = 1/sqrt(T)`` where the cotangent is a square root of the loss's Hessian.
The cotangent alone decides what the gradient is of: the loss, the model's own labels, or a square root of the
Gauss-Newton Hessian. Cotangents are formed in float64, where ``p - 1`` of a sure row still has digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from worker.data import Place


class Cotangent(Protocol):
    """``key`` stands in the fingerprint of what is cached: two cotangents of one key are the same function.

    ``is_root``: its outer products sum to a Hessian, or do so in expectation.
    """

    is_root: ClassVar[bool]

    @property
    def key(self) -> str: ...

    def __call__(self, logits_MC: Tensor, labels_M: Tensor, places: Sequence[Place], /) -> Tensor:
        """``c_MC`` float64, a tensor of its own, from float64 logits.

        What a prediction gets does not depend on the others that are asked for with it.
        """


@dataclass(frozen=True)
class OfLoss:
    """The gradient of the cross-entropy with the given label: ``p - e_y``."""

    is_root: ClassVar[bool] = False
    key: str = "loss"

    def __call__(self, logits_MC: Tensor, labels_M: Tensor, _places: Sequence[Place], /) -> Tensor:
        return _residual(logits_MC, labels_M)


@dataclass(frozen=True)
class OfTarget:
    """The part of the loss's gradient that one target has: in a dataset that repeats each row for each of its targets,
    of ``target_N`` in the ``n``-th."""

    is_root: ClassVar[bool] = False
    target_N: tuple[int, ...]
    key: str = "target"

    @classmethod
    def each(cls, counts: Sequence[int]) -> Self:
        """``counts``: how often each row is repeated, which is how many targets it has."""
        return cls(tuple(target for count in counts for target in range(count)))

    def __call__(self, logits_MC: Tensor, labels_M: Tensor, places: Sequence[Place], /) -> Tensor:
        own = [target == self.target_N[row] for row, target in places]
        return _residual(logits_MC, labels_M).mul_(torch.tensor(own, device=logits_MC.device)[:, None])


@dataclass(frozen=True)
class OfSampledLabel:
    """The gradient of the cross-entropy with a label drawn from the model: its second moment is the true Fisher matrix.

    What a prediction draws depends on the seed and its place alone, not on the batch it stands in. Each of a row's
    draws for itself, so that products between two of them vanish in expectation.
    """

    is_root: ClassVar[bool] = True
    seed: int

    @property
    def key(self) -> str:
        return f"drawn_label/{self.seed}"

    def __call__(self, logits_MC: Tensor, _labels_M: Tensor, places: Sequence[Place], /) -> Tensor:
        uniform_M1 = torch.from_numpy(self._uniform(places)).to(logits_MC.device)[:, None]
        cumulative_MC = logits_MC.softmax(1).cumsum_(1)
        sampled_M = torch.searchsorted(cumulative_MC, uniform_M1)[:, 0]
        return _residual(logits_MC, sampled_M.clamp(max=logits_MC.shape[1] - 1))

    def _uniform(self, places: Sequence[Place]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """``[M]`` from a stream for every row: Philox counts, and goes to any place of its sequence at once."""
        drawn = []
        for row, of in groupby(places, itemgetter(0)):
            wanted = [index for _, index in of]
            stream = np.random.Generator(np.random.Philox(key=self.seed, counter=row << 64))
            drawn.append(stream.random(max(wanted) + 1)[wanted])
        return np.concatenate(drawn)


@dataclass(frozen=True)
class OfGaussNewton:
    """Column ``component`` of ``S`` ``[C, C - 1]`` with ``S S^T = diag(p) - p p^T``, the loss's Hessian in the logits.

    So ``sum_k (J^T s_k)(J^T s_k)^T`` is the row's Gauss-Newton Hessian, exactly and without a label. With
    ``q = sqrt(p)`` of unit length, that is ``diag(q) (I - q q^T) diag(q)``, and the columns after the first
    of the Householder reflection that takes ``q`` to a coordinate axis span what is orthogonal to ``q``.
    """

    is_root: ClassVar[bool] = True
    component: int

    @property
    def key(self) -> str:
        return f"gauss_newton/{self.component}"

    def __call__(self, logits_MC: Tensor, _labels_M: Tensor, _places: Sequence[Place], /) -> Tensor:
        root_MC = logits_MC.softmax(1).sqrt()
        # The axis is the largest entry's: the reflection vector then has no cancellation, and the order of the other
        # axes is any order.
        axis_M = root_MC.argmax(1)
        axis_MC = torch.nn.functional.one_hot(axis_M, root_MC.shape[1]).to(root_MC.dtype)
        mirror_MC = root_MC + axis_MC
        # The component-th axis that is not the row's own.
        other_M = self.component + (axis_M <= self.component).long()
        other_MC = torch.nn.functional.one_hot(other_M, root_MC.shape[1]).to(root_MC.dtype)
        along_M1 = (mirror_MC * other_MC).sum(1, keepdim=True) / (1 + root_MC.gather(1, axis_M[:, None]))
        return root_MC * (other_MC - along_M1 * mirror_MC)


def cotangent_of(key: str) -> Cotangent:
    """The cotangent of this key. Raises ValueError: there is none."""
    match key.split("/"):
        case ["loss"]:
            return OfLoss()
        case ["drawn_label", seed]:
            return OfSampledLabel(int(seed))
        case ["gauss_newton", component]:
            return OfGaussNewton(int(component))
    raise ValueError(f"no cotangent has the key {key!r}")


def _residual(logits_MC: Tensor, labels_M: Tensor) -> Tensor:
    """``p - e_y``. The label's own entry is minus the sum of the others: it keeps its digits near ``p_y = 1``."""
    residual_MC = logits_MC.softmax(1).scatter(1, labels_M[:, None], 0.0)
    return residual_MC.scatter(1, labels_M[:, None], -residual_MC.sum(1, keepdim=True))
