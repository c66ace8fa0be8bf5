"""Where the Schulz steps may begin when the inverse of a related matrix is at hand.

Both starts rest on an interval that is known to hold the eigenvalues of ``A X``, as the steps need; the shorter it is,
the fewer they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ascribe.planning.schulz_degrees import start_angle
from worker.solvers.schulz_inverse import Start
from worker.solvers.schulz_steps import add_identity, residual

# The path's interval is that of an exact inverse; its error is to be small against the lower end.
_NEGLIGIBLE = 0.01


def path_start(inverse_PP: Tensor, error: float, damping: float, new_damping: float, largest: float) -> Start | None:
    """From ``X = (C + damping I)^-1`` to ``new_damping``, with no product at all.

    ``A X = I + (new_damping - damping) X`` has the eigenvalues ``(c + new_damping) / (c + damping)``, monotone in the
    eigenvalue ``c`` of ``C``, which lies in ``[0, largest]``. ``error`` is ``||I - (C + damping I) X||_F``.
    """
    low, high = sorted((new_damping / damping, (largest + new_damping) / (largest + damping)))
    if not error <= _NEGLIGIBLE * low:
        return None
    low, high = low - error, high + error
    c = 2 / (low + high)
    r_PP = add_identity(inverse_PP * (c * (damping - new_damping)), 1 - c)
    return Start(c * inverse_PP[None], r_PP[None], (start_angle(high / low),), saved=1)


def grown_start(a_PP: Tensor, inverse_PP: Tensor) -> Start | None:
    """From any matrix, at one product: if ``e = ||I - A X||_F < 1`` the eigenvalues lie in ``[1 - e, 1 + e]``."""
    r_BPP = residual(a_PP[None], inverse_PP[None])
    error = float(torch.linalg.matrix_norm(r_BPP[0]))
    if not error < 1:
        return None
    return Start(inverse_PP[None], r_BPP, (start_angle((1 + error) / (1 - error)),), saved=0)
