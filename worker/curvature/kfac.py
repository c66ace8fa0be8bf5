"""K-FAC: one tensor's Fisher block as a Kronecker product of two small matrices (Martens & Grosse 2015).

What the two are, and when their product is exact: :mod:`worker.gradients.factors`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ascribe.errors import NonFinite
from worker.eigen_operators import EigenOperator
from worker.gradients.factors import KroneckerFactors


def kfac(name: str, factors: KroneckerFactors) -> EigenOperator:
    """``left (x) right`` in its eigenbasis: the eigenvalues are all products of one of each factor's.

    Raises:
        NonFinite: if a factor is not finite; ``name`` says whose.
    """
    left_R, left_RR = _eigh(name, factors.left_RR)
    right_D, right_DD = _eigh(name, factors.right_DD)
    return EigenOperator(left_RR, right_DD, left_R.outer(right_D))


def _eigh(name: str, factor: Tensor) -> tuple[Tensor, Tensor]:
    if not bool(factor.isfinite().all()):
        raise NonFinite(f"The curvature of block {name} is not finite: check its gradients.")
    value: Tensor
    basis: Tensor
    value, basis = torch.linalg.eigh(factor)
    # A sum of squares: what is below zero is rounding. Row-major like a basis that was read back: other layouts take
    # other kernels.
    return value.clamp(min=0), basis.contiguous()
