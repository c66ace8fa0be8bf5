"""The eigenvectors of a curvature's largest eigenvalues: the directions that the inverse turns scores away from."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from worker.operators import LinearOperator

_EXTRA_COLUMNS = 10
_ROUNDS = 8


def top_directions(operator: LinearOperator, count: int, generator: Generator) -> Tensor:
    """Orthonormal ``U_Pk``, ``k = min(count, P)``, the largest eigenvalue's first, by randomized subspace iteration.

    A direction whose eigenvalue is ``r`` times the first one beyond the ten spare columns is off by about ``r^-8``
    (Halko, Martinsson & Tropp 2011, arXiv 0909.4061, section 10.4). Directions of nearly equal eigenvalues are any
    orthonormal basis of what they span.
    """
    size = operator.size
    count = min(count, size)
    columns = min(size, count + _EXTRA_COLUMNS)
    basis_PK: Tensor = torch.randn(size, columns, generator=generator, dtype=torch.float64)
    for _ in range(_ROUNDS):
        basis_PK, _ = torch.linalg.qr(operator.matmul(basis_PK))
    inner_KK = basis_PK.T @ operator.matmul(basis_PK)
    _, vector_KK = torch.linalg.eigh((inner_KK + inner_KK.T) / 2)
    directions_Pk: Tensor = basis_PK @ vector_KK.flip(1)[:, :count]
    return directions_Pk


def without(directions_Pk: Tensor, x_PK: Tensor) -> Tensor:
    """``x - U U^T x``."""
    return x_PK - directions_Pk @ (directions_Pk.T @ x_PK)
