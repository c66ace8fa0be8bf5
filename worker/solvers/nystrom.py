"""A randomized Nystrom sketch of a positive semi-definite matrix, as a preconditioner (Frangella, Tropp & Udell 2021).

``C ~ U diag(value) U^T`` from products with a few random columns (arXiv 2110.02820, algorithm 2.1, shifted for
stability). The sketch never exceeds ``C``, so that ``||C - sketch|| <= tr C - tr sketch``: a bound that costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from worker.operators import LinearOperator


@dataclass(frozen=True)
class Sketch:
    """``basis_PR`` orthonormal, ``value_R`` from the largest down, not negative; float64."""

    basis_PR: Tensor
    value_R: Tensor

    @property
    def smallest(self) -> float:
        return float(self.value_R[-1])

    def precondition(self, x_PK: Tensor, damping: float) -> Tensor:
        """``M^-1 x``, ``M^-1 = (s + damping) U (diag(value) + damping)^-1 U^T + (I - U U^T)``, ``s`` the smallest.

        Equation 5.3. The preconditioned ``C + damping I`` has a condition of at most
        ``1 + (s + ||C - sketch||) / damping`` (proposition 5.3).
        """
        excess_R = (self.smallest + damping) / (self.value_R + damping) - 1
        return torch.addmm(x_PK, self.basis_PR, excess_R[:, None] * (self.basis_PR.T @ x_PK))


class Sketcher:
    """Random orthonormal columns and their products with ``C``: more of them can be added without losing any."""

    def __init__(self, operator: LinearOperator, generator: Generator) -> None:
        self._operator, self._generator = operator, generator
        self._test_PR = torch.zeros(operator.size, 0, dtype=torch.float64)
        self._product_PR = self._test_PR

    @property
    def rank(self) -> int:
        return self._test_PR.shape[1]

    def widen(self, columns: int) -> None:
        """One product with ``columns`` more random columns, orthonormal to those before."""
        new_PR = torch.randn(self._operator.size, columns, generator=self._generator, dtype=torch.float64)
        for _ in range(2):  # once is not enough where few directions are left
            new_PR = new_PR - self._test_PR @ (self._test_PR.T @ new_PR)
            new_PR, _ = torch.linalg.qr(new_PR)
        self._test_PR = torch.cat([self._test_PR, new_PR], dim=1)
        self._product_PR = torch.cat([self._product_PR, self._operator.matmul(new_PR)], dim=1)

    def sketch(self) -> Sketch | None:
        """The sketch of all columns so far, or ``None`` if ``C`` shows that it is not positive semi-definite."""
        float64 = torch.finfo(torch.float64)
        shift = max(float64.tiny, float64.eps * math.sqrt(self._operator.size) * float(self._product_PR.norm()))
        shifted_PR = self._product_PR + shift * self._test_PR
        core_RR = self._test_PR.T @ shifted_PR
        factor_RR, info = torch.linalg.cholesky_ex((core_RR + core_RR.T) / 2)
        if int(info) != 0:
            return None
        root_PR = torch.linalg.solve_triangular(factor_RR, shifted_PR.T, upper=False).T
        basis_PR, singular_R, _ = torch.linalg.svd(root_PR, full_matrices=False)
        # Row-major like one that was read back: other layouts take other kernels.
        return Sketch(basis_PR.contiguous(), (singular_R.square() - shift).clamp(min=0))
