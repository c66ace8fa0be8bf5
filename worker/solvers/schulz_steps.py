"""Steps ``X <- X q(R)``, ``R = I - A X``, each of which composes the residual with a Chebyshev polynomial.

Let the eigenvalues of ``A X_0`` lie in ``[a, b]``, scaled so that ``a + b = 2``, and ``kappa = b / a``. Then those of
``R_0`` lie within ``1 / cosh y`` of zero with ``y = 2 atanh(1 / sqrt kappa)``. A step of degree ``m`` turns ``R`` into
``T_m(t R) / T_m(t)``, ``t = cosh y``, so ``y`` grows to ``m y``: after steps whose degrees multiply to ``M``

    ||R|| <= 1 / T_M((kappa + 1) / (kappa - 1)) = 1 / cosh(M y),

the least that any polynomial of degree ``M`` reaches on the interval (Pan & Schreiber 1991, section 3, for ``m = 2``).

Shapes: ``B`` matrices ``[P, P]`` of one size; each has a ``y`` of its own, all take steps of the same degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worker.ticks import tick


def coefficients(degree: int, angle: float) -> tuple[float, ...]:
    """Of ``p = q - I``: ``s`` in ``p = s R + (s - 1) I`` for degree 2, else ``s_i`` in ``p = (R + R^2) sum s_i R^2i``.

    ``1 - T_m(t R) / T_m(t)`` vanishes at ``R = I``; ``q`` is what is left when ``I - R`` is divided out.
    """
    t, top = math.cosh(angle), math.cosh(degree * angle)
    match degree:
        case 2:
            return (2 * t**2 / top,)
        case 3:
            return (4 * t**3 / top,)
        case 5:
            return (1 - 5 * t / top, 16 * t**5 / top)
        case 7:
            linear, cubic = 7 * t / top, 56 * t**3 / top
            return (1 + linear, 1 + linear - cubic, 64 * t**7 / top)
        case _:
            raise AssertionError(degree)


def correction(r_BPP: Tensor, degree: int, angle_B: Sequence[float]) -> Tensor:
    """``p(R)``, ``[B, P, P]``, for the step ``X <- X + X p(R)``."""
    by_block = [coefficients(degree, angle) for angle in angle_B]
    s_B11 = [r_BPP.new_tensor(values)[:, None, None] for values in zip(*by_block, strict=True)]
    if degree == 2:
        return add_identity(r_BPP * s_B11[0], s_B11[0] - 1)
    square_BPP = torch.bmm(r_BPP, r_BPP)
    even_odd_BPP = r_BPP + square_BPP
    if degree == 3:
        return even_odd_BPP.mul_(s_B11[0])
    series_BPP = s_B11[1] * square_BPP
    if degree == 7:
        series_BPP.add_(torch.bmm(square_BPP, square_BPP).mul_(s_B11[2]))
    return torch.bmm(even_odd_BPP, add_identity(series_BPP, s_B11[0]))


def add_identity(matrix_BPP: Tensor, scale_B11: Tensor | float) -> Tensor:
    """``matrix + scale I`` in place."""
    diagonal_BP = matrix_BPP.diagonal(dim1=-2, dim2=-1)
    diagonal_BP.add_(scale_B11 if isinstance(scale_B11, float) else scale_B11[..., 0])
    return matrix_BPP


def residual(a_BPP: Tensor, x_BPP: Tensor) -> Tensor:
    """``I - A X``."""
    return add_identity(torch.bmm(a_BPP, x_BPP).neg_(), 1.0)


def iterate(a_BPP: Tensor, x_BPP: Tensor, r_BPP: Tensor, angle_B: Sequence[float], degrees: Sequence[int]) -> Tensor:
    """``X`` after the steps, from ``x_BPP`` and its residual ``r_BPP``, in their dtype.

    Every later residual is computed from ``X`` anew, so rounding is corrected by the next step; making ``X`` symmetric
    in between would undo that. The first step from ``c I``: pass ``x_BPP`` as ``[B, 1, 1]``, which is ``c``.
    """
    for step, degree in enumerate(degrees):
        tick()
        if step > 0:
            r_BPP = residual(a_BPP, x_BPP)
        p_BPP = correction(r_BPP, degree, angle_B)
        x_BPP = torch.baddbmm(x_BPP, x_BPP, p_BPP) if x_BPP.shape == p_BPP.shape else x_BPP * add_identity(p_BPP, 1.0)
        angle_B = [degree * angle for angle in angle_B]
    return x_BPP
