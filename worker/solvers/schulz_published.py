"""The Schulz iteration as HyperINF's released code runs it, for comparison (arXiv 2410.05090).

A fixed start, no stop test, float32, and two dampings that are not in the paper's formula: one is added, the other is
what stopping early amounts to. ``k`` steps from ``c I`` are near ``(A + I / (c 2^k))^-1``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped
from worker.solvers.base import Stats
from worker.ticks import tick

_START = 5e-5
_DAMPING = 1e-3


def published_inverse(system: Damped, matrix_PP: Tensor, iterations: int) -> tuple[Tensor, SolveStatus, Stats]:
    """``X`` in float64 after exactly so many steps; ``matrix_PP`` is the matrix under the damping of ``system``."""
    a_PP = matrix_PP.to(torch.float32, copy=True)
    a_PP.diagonal().add_(system.damping)
    a_PP.diagonal().add_(_DAMPING)
    identity_PP = torch.eye(len(a_PP), device=a_PP.device)
    inverse_PP = _START * identity_PP
    for _ in range(iterations):
        tick()
        inverse_PP = inverse_PP @ (2 * identity_PP - a_PP @ inverse_PP)
    truncation = 1 / (_START * 2.0**iterations)
    stats = Stats(
        iterations=iterations,
        products=2 * iterations,
        condition_bound=system.condition_bound(),
        precision="float32",
        plan={"added_damping": _DAMPING, "truncation_damping": truncation, "hidden_damping": _DAMPING + truncation},
        notes=(
            f"The published start adds two dampings of its own to {system.damping:.3g}: {_DAMPING} in the released "
            f"code, and about {truncation:.2g} by stopping after {iterations} steps.",
        ),
    )
    finite = bool(inverse_PP.isfinite().all())
    return inverse_PP.to(torch.float64), SolveStatus.CONVERGED if finite else SolveStatus.DIVERGED, stats
