"""How many products a Schulz iteration takes, by arithmetic alone: the solver and the cost model plan with it.

A step of degree ``m`` turns an interval's ``y = 2 atanh(1 / sqrt(kappa))`` into ``m y``, and a residual of at most
``1 / cosh(y)`` is left of it: see :mod:`worker.solvers.schulz_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

PRODUCTS = {2: 2, 3: 3, 5: 4, 7: 5}
"""Products of a step by its degree: ``A X``, powers of ``R`` and ``X q(R)``. From ``c I`` the first and the last are
free; where ``R`` is known, the first."""
# cosh of twice this is finite in float64, and no smaller residual is told from zero.
_ANGLE_OF_A_POINT = 350.0


def start_angle(condition: float) -> float:
    """``y`` of an interval ``[a, b]`` with ``condition = b / a``."""
    return 2 * math.atanh(1 / math.sqrt(condition)) if condition > 1 else _ANGLE_OF_A_POINT


def degrees_for(angle: float, tolerance: float) -> tuple[int, ...]:
    """The steps that reach ``1 / cosh(M angle) <= tolerance`` with the fewest products, and then furthest.

    At least one step, which is free from ``c I``. More of the degrees 2 and 3 than one, or of degree 7 than three, cost
    no less than fives that reach further: 2 x 2 < 5, 3 x 3 < 2 x 5, 2 x 3 < 7 and 7^4 < 5^5 for as many products.
    """
    needed = max(2.0, math.acosh(1 / tolerance) / angle)
    plans = []
    for small in ((), (2,), (3,)):
        for sevens in range(4):
            degrees = (*small, *(7,) * sevens)
            while math.prod(degrees) < needed:
                degrees = (*degrees, 5)
            plans.append(tuple(sorted(degrees)))
    return min(plans, key=lambda degrees: (products_of(degrees), -math.prod(degrees)))


def products_of(degrees: Sequence[int]) -> int:
    return sum(PRODUCTS[degree] for degree in degrees)
