"""How many steps conjugate gradients take, by arithmetic alone."""

from __future__ import annotations

import math

# Rounding makes conjugate gradients forget eigenvalues already dealt with.
_FORGOTTEN = 2


def cg_iterations(*, condition: float, tail: float, size: int, tolerance: float, floor: float = 1.0) -> int:
    """``min over j of j + log(2 / tolerance) / log((sqrt(kappa_j) + 1) / (sqrt(kappa_j) - 1))``.

    ``j`` steps deal with the ``j`` largest eigenvalues, and ``kappa_j`` is the condition of what they leave
    (Axelsson & Lindskog 1986); for a large condition the rest is ``sqrt(kappa_j) / 2 log(2 / tolerance)``. The
    ``j + 1`` largest of a positive semi-definite matrix cannot all exceed its trace over ``j + 1``, so
    ``kappa_j <= min(condition, floor + tail / (j + 1))`` whatever the spectrum looks like.

    Args:
        condition: a bound on the condition number of the damped matrix.
        tail: ``tr C / damping`` or, with a preconditioner, the trace of what it leaves of ``C`` over the damping.
        size: the side of the matrix, or the rank of ``C`` where that is smaller; exact arithmetic ends after as many.
        tolerance: relative, between 0 and 1.
        floor: the condition without that tail: 1, or ``1 + smallest sketched eigenvalue / damping``.
    """
    digits = math.log(2 / tolerance)
    # Where the derivative by j vanishes, were it not for the floor.
    balance = min(size, math.ceil((digits * math.sqrt(tail) / 4) ** (2 / 3)))

    def steps(outliers: int) -> float:
        left = max(1.0, min(condition, floor + tail / (outliers + 1)))
        return outliers + (0 if left == 1 else digits / (2 * math.atanh(1 / math.sqrt(left))))

    return max(1, math.ceil(min(_FORGOTTEN * size, steps(0), steps(balance))))
