"""An explicit inverse by planned Schulz steps: in low precision first where that is safe, certified in float64.

Shapes: ``B`` matrices ``[P, P]`` at once, each with bounds and a tolerance of its own. No matrix enters another's
numbers, but products of a stack may round differently from those of one matrix: where odd sizes shift its place in
memory, or on an accelerator, which picks its kernel by the shape of the whole stack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from ascribe.planning.schulz_degrees import degrees_for, products_of, start_angle
from ascribe.status import SolveStatus
from worker.operators import DenseOperator
from worker.solvers.schulz_steps import add_identity, iterate, residual
from worker.spectrum import lanczos
from worker.ticks import tick

Precision = Literal["float64", "float32", "tfloat32", "bfloat16"]

# ||I - A X||_F ends at 1 to 12 times this and the condition number (dense matrices of 256, spectra of several shapes).
_EPSILON = {"float32": 2.0**-23, "tfloat32": 2.0**-10, "bfloat16": 2.0**-7}
# From c I the first step makes neither the product A X nor X q(R).
COLD_SAVES = 2
# Beyond, what float32 leaves comes too close to 1, from where float64 could not go on.
_FLOAT32_CONDITION = 1e5
# Corrections square the error: from 0.5 to 1e-10 in five.
_CORRECTIONS = 6


@dataclass(frozen=True)
class Recipe:
    """The degrees of the steps, and the precision they run in. ``whole`` unless a cap cut them short."""

    degrees: tuple[int, ...]
    precision: Precision
    whole: bool = True

    @property
    def products(self) -> int:
        """What all its steps would take from a start that saves nothing."""
        return products_of(self.degrees)

    def cut(self, steps: int) -> Recipe:
        return Recipe(self.degrees[:steps], self.precision, whole=False)


@dataclass(frozen=True)
class Start:
    """``X_0`` with ``R_0 = I - A X_0`` in float64, ``angle_B`` of the intervals that hold the spectra of ``A X_0``."""

    x_BPP: Tensor
    """``[B, 1, 1]`` where it is a multiple of the identity."""
    r_BPP: Tensor
    angle_B: tuple[float, ...]
    saved: int
    """Products that the first step need not make."""


@dataclass(frozen=True)
class Inverse:
    """``x_PP`` in float64, its ``error = ||I - A X||_F`` as measured, and its cost; not finite where it ran away."""

    x_PP: Tensor
    error: float
    low_products: int
    products: int
    """All of them, the one that measured the error included."""
    corrections: int

    @property
    def is_contraction(self) -> bool:
        """Close enough to the inverse for corrections to take it there."""
        return self.error < 1


def choose(
    angle: float, condition: float, tolerance: float, size: int, precision: Precision | Literal["auto"]
) -> Recipe:
    """Steps to ``||I - A X|| <= tolerance``; those in low precision go as far as is of use to what follows in float64.

    ``condition`` is that of ``A`` and bounds what low precision can reach; ``angle`` is that of the start.
    """
    if precision == "auto":
        precision = "float32" if condition <= _FLOAT32_CONDITION else "float64"
    if precision != "float64":
        floor = 2 * _EPSILON[precision] * condition
        while tolerance < min(floor, 0.1):  # a correction more, each squares the error
            tolerance = math.sqrt(tolerance)
        tolerance = min(tolerance, 0.5 / math.sqrt(size))  # ||I - A X||_F < 1 must be seen
    return Recipe(degrees_for(angle, tolerance), precision)


def cold_start(a_BPP: Tensor, lower_B: Sequence[float], upper_B: Sequence[float]) -> Start:
    """``c I``, ``c = 2 / (l + u)``, for spectra within ``[l, u]``."""
    bounds = list(zip(lower_B, upper_B, strict=True))
    c_B11 = a_BPP.new_tensor([2 / (lower + upper) for lower, upper in bounds])[:, None, None]
    angle_B = tuple(start_angle(upper / lower) for lower, upper in bounds)
    return Start(c_B11, add_identity(-c_B11 * a_BPP, 1.0), angle_B, saved=COLD_SAVES)


def invert(a_BPP: Tensor, start: Start, recipe: Recipe, tolerance_B: Sequence[float]) -> list[Inverse]:
    """Run the recipe, measure ``||I - A X||_F`` in float64, and correct in float64 where it is above the tolerance.

    Args:
        a_BPP: the matrices in float64.
        start: where to start from.
        recipe: the same for all of them.
        tolerance_B: to which error each is corrected, if its recipe was whole.
    """
    dtype = getattr(torch, "float32" if recipe.precision == "tfloat32" else recipe.precision)
    with _tensor_cores(recipe.precision == "tfloat32"):
        x_BPP = iterate(
            a_BPP.to(dtype), start.x_BPP.to(dtype), start.r_BPP.to(dtype), start.angle_B, recipe.degrees
        ).to(torch.float64)
    planned = max(0, recipe.products - start.saved)
    low = 0 if recipe.precision == "float64" else planned
    r_BPP = residual(a_BPP, x_BPP)
    inverses = [
        Inverse(x_PP, float(torch.linalg.matrix_norm(r_PP)), low, planned + 1, 0)
        for x_PP, r_PP in zip(x_BPP, r_BPP, strict=True)
    ]
    if recipe.whole:
        _correct(a_BPP, x_BPP, r_BPP, inverses, tolerance_B)
    # Memory of its own, aligned like that of a fresh one: products with it round the same wherever it came from.
    return [replace(inverse, x_PP=inverse.x_PP.clone()) for inverse in inverses]


def _correct(
    a_BPP: Tensor, x_BPP: Tensor, r_BPP: Tensor, inverses: list[Inverse], tolerance_B: Sequence[float]
) -> None:
    """``X <- X + X (I - A X)`` in place for whom it is due, as long as it halves the error."""
    going = [True] * len(inverses)
    for _ in range(_CORRECTIONS):
        going = [
            go and inverse.is_contraction and inverse.error > tolerance
            for go, inverse, tolerance in zip(going, inverses, tolerance_B, strict=True)
        ]
        if not any(going):
            return
        tick()
        closer_BPP = torch.baddbmm(x_BPP, x_BPP, r_BPP)
        left_BPP = residual(a_BPP, closer_BPP)
        for i, inverse in enumerate(inverses):
            if not going[i]:
                continue
            error = float(torch.linalg.matrix_norm(left_BPP[i]))
            going[i] = error < inverse.error / 2
            inverses[i] = replace(inverse, products=inverse.products + 2, corrections=inverse.corrections + 1)
            if going[i]:
                x_BPP[i], r_BPP[i] = closer_BPP[i], left_BPP[i]
                inverses[i] = replace(inverses[i], error=error)


def breakdown(a_PP: Tensor, upper: float) -> tuple[SolveStatus, tuple[str]]:
    """Why whole steps in float64 did not converge, and the reason in words."""
    _, info = torch.linalg.cholesky_ex(a_PP)
    if int(info) != 0:
        return SolveStatus.NOT_POSITIVE_DEFINITE, ("The damped curvature has an eigenvalue at or below zero.",)
    largest = lanczos(DenseOperator(a_PP.cpu()), Generator().manual_seed(0)).value
    if largest > upper:
        return SolveStatus.DIVERGED, (
            f"The largest eigenvalue is {largest:.3g} or more: the bound of {upper:.3g} that the steps were scaled by "
            "does not hold.",
        )
    return SolveStatus.DIVERGED, ("The condition number is too large for float64.",)


@contextmanager
def _tensor_cores(allowed: bool) -> Iterator[None]:
    """Whether float32 products on CUDA round their factors to 11 bits (TF32)."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
