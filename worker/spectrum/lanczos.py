"""The largest eigenvalue, from below and above."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor

from worker.operators import LinearOperator, Products

_MAX_LANCZOS_STEPS = 100


@dataclass(frozen=True)
class RitzValue:
    """An estimate of the largest eigenvalue from below, and how far above it the eigenvalue may lie.

    ``value`` never exceeds the largest eigenvalue. Some eigenvalue lies within ``residual`` of it, and from a random
    start that is the largest one unless the start was orthogonal to its eigenvector, which has probability zero.
    """

    value: float
    residual: float
    products: int
    """Products with the matrix that it took."""
    vector_P: Tensor = field(compare=False, repr=False)
    """The unit vector that belongs to the value, float64."""

    @property
    def upper(self) -> float:
        return self.value + self.residual


def lanczos(operator: Products, generator: Generator, tolerance: float = 1e-3) -> RitzValue:
    """The top Ritz value by Lanczos with full reorthogonalisation (Golub & Van Loan, section 10.1).

    Ends when the Ritz residual is at most ``tolerance`` times the value, or after 100 products.
    """
    size = operator.size
    steps = min(size, _MAX_LANCZOS_STEPS)
    basis_PM = torch.zeros(size, steps, dtype=torch.float64)
    projected_MM = torch.zeros(steps, steps, dtype=torch.float64)
    vector_P = torch.randn(size, generator=generator, dtype=torch.float64)
    vector_P /= vector_P.norm()
    ritz = RitzValue(0.0, 0.0, 0, vector_P)
    for step in range(steps):
        basis_PM[:, step] = vector_P
        vector_P = operator.matmul(vector_P[:, None])[:, 0]
        seen_PM = basis_PM[:, : step + 1]
        projected_MM[step, step] = basis_PM[:, step] @ vector_P
        for _ in range(2):  # once is not enough: rounding leaves a part along the vectors already seen
            vector_P = vector_P - seen_PM @ (seen_PM.T @ vector_P)
        beta = float(vector_P.norm())
        values_M, vectors_MM = torch.linalg.eigh(projected_MM[: step + 1, : step + 1])
        residual = beta * abs(float(vectors_MM[-1, -1]))
        ritz = RitzValue(float(values_M[-1]), residual, step + 1, seen_PM @ vectors_MM[:, -1])
        if ritz.residual <= tolerance * ritz.value or step + 1 == steps:
            break
        projected_MM[step, step + 1] = projected_MM[step + 1, step] = beta
        vector_P = vector_P / beta
    return ritz


_known: WeakKeyDictionary[LinearOperator, dict[tuple[int, float], RitzValue]] = WeakKeyDictionary()


def top(operator: LinearOperator, seed: int, tolerance: float = 1e-3) -> RitzValue:
    """:func:`lanczos` from a seed, once an operator: its damping, a plan, and the check before it all ask for the same.

    A product may be a pass of the model over all rows.
    """
    known = _known.setdefault(operator, {})
    if (seed, tolerance) not in known:
        known[seed, tolerance] = lanczos(operator, Generator().manual_seed(seed), tolerance)
    return known[seed, tolerance]


def largest_eigenvalue(operator: LinearOperator, generator: Generator, tolerance: float = 1e-3) -> float:
    """The largest eigenvalue, to a relative ``tolerance`` from below; see :func:`lanczos` for a bound from above."""
    return lanczos(operator, generator, tolerance).value
