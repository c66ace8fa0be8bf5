"""Published settings, written anew from their definitions, to be compared with by name and for nothing else.

None of it is the authors' code. How they differ from what the papers set out to solve stands with each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SCHULZ_START = 5e-5
SCHULZ_STEPS = 30
LISSA_STEPS = 10


def schulz(a_PP: Tensor, steps: int = SCHULZ_STEPS) -> Tensor:
    """HyperINF (arXiv 2410.05090, algorithm 1): ``X <- X (2I - A X)`` from ``5e-5 I``, 20 to 30 steps, no stop test.

    The start is so small that ``k`` steps invert about ``A + I / (5e-5 * 2^k)``: 0.02 more damping at 20 steps.
    In the dtype of ``a_PP``, published in float32.
    """
    identity_PP = torch.eye(len(a_PP), dtype=a_PP.dtype, device=a_PP.device)
    inverse_PP = SCHULZ_START * identity_PP
    for _ in range(steps):
        inverse_PP = inverse_PP @ (2 * identity_PP - a_PP @ inverse_PP)
    return inverse_PP


def lissa_as_shipped(
    matmul: Callable[[Tensor], Tensor], damping: float, rhs_PK: Tensor, steps: int = LISSA_STEPS
) -> Tensor:
    """LiSSA of the DataInf and HyperINF repositories: ``u <- v + u - (C - damping I) u`` from ``v``.

    The damping has the wrong sign, and no step size keeps eigenvalues above 2 from growing. ``matmul`` is ``C x``.
    """
    u_PK = rhs_PK
    for _ in range(steps):
        u_PK = rhs_PK + u_PK - (matmul(u_PK) - damping * u_PK)
    return u_PK


def lissa_corrected(
    matmul: Callable[[Tensor], Tensor], damping: float, largest: float, rhs_PK: Tensor, steps: int
) -> Tensor:
    """The same with the damping's sign right and a step size of ``1 / (largest + damping)``, in as many steps as asked.

    ``largest`` is the largest eigenvalue of ``C`` or a bound on it; all examples are in every step.
    """
    step_size = 1 / (largest + damping)
    u_PK = step_size * rhs_PK
    for _ in range(steps):
        u_PK = u_PK - step_size * (matmul(u_PK) + damping * u_PK - rhs_PK)
    return u_PK


def datainf(grad_NP: Tensor, damping: float, rhs_P: Tensor) -> Tensor:
    """DataInf (arXiv 2310.00902, equation 5), an example at a time as its repository does."""
    total_P = torch.zeros_like(rhs_P)
    for grad_P in grad_NP:
        total_P += rhs_P - (grad_P @ rhs_P) / (damping + grad_P @ grad_P) * grad_P
    return total_P / (damping * len(grad_NP))
