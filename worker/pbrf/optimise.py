"""L-BFGS from a known inverse Hessian, judged by the gradient alone.

Near its minimum the objective changes by less than its rounding while the gradient still has eight digits, so neither
the line search nor the stopping test looks at values. The start and the gradient decide where it ends; the inverse
decides only how soon.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

_PAIRS = 10
_HALVINGS = 20
_OVERSHOOT = 0.9
"""The slope at the end of a step may be this much of the one at its start, with the other sign: more is too far."""

_PATIENCE = 10
"""Steps without a smaller gradient than the smallest so far: it has run away, or rounding is all that is left."""

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Minimum:
    """``relative_gradient`` is ``||grad f|| / ||grad f(start)||`` at ``point_P``."""

    point_P: Tensor
    relative_gradient: float
    iterations: int
    converged: bool


def minimise(gradient: Map, start_P: Tensor, inverse: Map, *, tolerance: float, max_iterations: int = 50) -> Minimum:
    """Follow ``gradient`` from ``start_P`` until it is ``tolerance`` of what it was, or no step gets nearer.

    ``inverse`` is any positive definite map; L-BFGS (Nocedal & Wright 2006, algorithm 7.4) corrects it by what the
    last steps showed. With ``(Hessian)^-1`` a near quadratic objective takes a handful of steps.
    """
    point_P, grad_P = start_P, gradient(start_P)
    scale = float(grad_P.norm())
    if scale == 0.0:
        return Minimum(point_P, 0.0, 0, converged=True)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=_PAIRS)
    best, best_at = math.inf, 0
    for iteration in range(max_iterations):
        relative = float(grad_P.norm()) / scale
        if relative <= tolerance:
            return Minimum(point_P, relative, iteration, converged=True)
        if relative < best:
            best, best_at = relative, iteration
        elif iteration - best_at >= _PATIENCE:
            return Minimum(point_P, relative, iteration, converged=False)
        step = _search(gradient, point_P, grad_P, -_two_loops(grad_P, pairs, inverse))
        if step is None:
            return Minimum(point_P, relative, iteration, converged=False)
        new_point_P, new_grad_P = step
        moved_P, turned_P = new_point_P - point_P, new_grad_P - grad_P
        if float(moved_P @ turned_P) > 0:
            pairs.append((moved_P, turned_P))
        point_P, grad_P = new_point_P, new_grad_P
    relative = float(grad_P.norm()) / scale
    return Minimum(point_P, relative, max_iterations, converged=relative <= tolerance)


def _search(gradient: Map, point_P: Tensor, grad_P: Tensor, direction_P: Tensor) -> tuple[Tensor, Tensor] | None:
    """The first of the steps 1, 1/2, ... that does not overshoot, with the gradient there; None if none of them."""
    slope = float(grad_P @ direction_P)
    step = 1.0
    for _ in range(_HALVINGS if slope < 0 else 0):
        new_point_P = point_P + step * direction_P
        new_grad_P = gradient(new_point_P)
        if bool(new_grad_P.isfinite().all()) and float(new_grad_P @ direction_P) <= -_OVERSHOOT * slope:
            return new_point_P, new_grad_P
        step /= 2
    return None


def _two_loops(grad_P: Tensor, pairs: deque[tuple[Tensor, Tensor]], inverse: Map) -> Tensor:
    """The inverse Hessian, as ``inverse`` and the pairs have it, times ``grad_P``."""
    direction_P = grad_P.clone()
    weights: list[Tensor] = []
    for moved_P, turned_P in reversed(pairs):
        weight = (moved_P @ direction_P) / (moved_P @ turned_P)
        direction_P -= weight * turned_P
        weights.append(weight)
    direction_P = inverse(direction_P)
    for (moved_P, turned_P), weight in zip(pairs, reversed(weights), strict=True):
        direction_P = direction_P + (weight - (turned_P @ direction_P) / (moved_P @ turned_P)) * moved_P
    return direction_P
