"""How many steps a LiSSA run needs, by arithmetic alone: the service refuses with it, the worker plans with it."""

from __future__ import annotations

import math


def steps_needed(contraction: float, tolerance: float) -> int:
    """``T = log(1/tolerance) / (step_size * damping)``, the steps that shrink the slowest error to ``tolerance``.

    ``contraction`` is ``step_size * damping``; Klochkov & Liu (arXiv 2409.17357, section 3).
    """
    return math.ceil(math.log(1 / tolerance) / contraction)


def minimum_steps(relative_to_largest: float, tolerance: float) -> int:
    """Steps that any stable step size needs at damping ``x`` times the largest eigenvalue, whatever the data.

    A stable step size is at most ``1 / (lambda_max + damping)``, so ``step_size * damping <= x / (1 + x)``.
    """
    return steps_needed(relative_to_largest / (1 + relative_to_largest), tolerance)
