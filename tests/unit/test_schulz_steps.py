from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ascribe.planning.schulz_degrees import PRODUCTS, degrees_for, products_of, start_angle
from worker.solvers.schulz_steps import add_identity, coefficients, iterate, residual

DEGREES = tuple(PRODUCTS)


def _from_scaled_identity(value_BP: Tensor, condition: float, degrees: tuple[int, ...]) -> Tensor:
    """``1 - a x(a)`` after the steps on diagonal matrices with eigenvalues in ``[1 / condition, 1]``."""
    a_BPP = value_BP.diag_embed()
    c = 2 / (1 + 1 / condition)
    c_B11 = value_BP.new_full((len(value_BP), 1, 1), c)
    angles = [start_angle(condition)] * len(value_BP)
    x_BPP = iterate(a_BPP, c_B11, add_identity(-c * a_BPP, 1.0), angles, degrees)
    return 1 - value_BP * x_BPP.diagonal(dim1=1, dim2=2)


@pytest.mark.parametrize("condition", [2.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("degrees", [(2,), (3,), (5,), (7,), (2, 2, 2), (7, 5), (5, 7), (3, 5, 7), (2, 7, 5, 3)])
def test_the_steps_are_the_chebyshev_polynomial_of_their_product(condition: float, degrees: tuple[int, ...]) -> None:
    """``I - A X = T_M(affine(A)) / T_M(affine(0))`` on every eigenvalue, ``T_M`` as ``cos(M acos)`` in float64."""
    value_1P = torch.linspace(1 / condition, 1, 201, dtype=torch.float64)[None]
    error_1P = _from_scaled_identity(value_1P, condition, degrees)
    degree = math.prod(degrees)
    t_1P = (1 + 1 / condition - 2 * value_1P) / (1 - 1 / condition)
    at_zero = math.cosh(degree * 2 * math.atanh(1 / math.sqrt(condition)))
    expected_1P = torch.cos(degree * torch.acos(t_1P.clamp(-1, 1))) / at_zero
    torch.testing.assert_close(error_1P, expected_1P, rtol=1e-6, atol=1e-6 / at_zero + 1e-9)
    assert float(error_1P.abs().max()) <= (1 + 1e-6) / at_zero + 1e-15


@pytest.mark.parametrize("degree", DEGREES)
def test_a_step_takes_the_products_it_is_counted_for(degree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(name: str) -> Callable[..., Tensor]:
        product = getattr(torch, name)

        def count(*args: Tensor) -> Tensor:
            made.append(name)
            result: Tensor = product(*args)
            return result

        return count

    for name in ("bmm", "baddbmm"):
        monkeypatch.setattr(torch, name, counted(name))
    a_BPP = torch.eye(4, dtype=torch.float64)[None]
    c_B11 = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
    iterate(a_BPP, c_B11, 0.5 * a_BPP, [1.0], (degree,))
    assert len(made) == PRODUCTS[degree] - 2
    made.clear()
    iterate(a_BPP, 0.5 * a_BPP, residual(a_BPP, 0.5 * a_BPP), [1.0], (degree,))
    assert len(made) == PRODUCTS[degree]


# What numerics.md lists for a residual of 1e-6: 9, 15 and 21 products, 64 with the published start at 1e4.
@pytest.mark.parametrize(("condition", "products"), [(1.0, 0), (1e2, 9), (1e4, 15), (1e6, 21)])
def test_the_products_to_a_residual_of_1e_6(condition: float, products: int) -> None:
    assert products_of(degrees_for(start_angle(condition), 1e-6)) - 2 == products


@pytest.mark.parametrize("condition", [1.0, 1.5, 7.0, 30.0, 2e2, 3e3, 5e4, 1e5])
@pytest.mark.parametrize("tolerance", [0.5, 1e-3, 1e-6, 1e-12])
def test_no_other_steps_take_fewer_products(condition: float, tolerance: float) -> None:
    angle = start_angle(condition)
    chosen = degrees_for(angle, tolerance)
    assert math.prod(chosen) * angle >= math.acosh(1 / tolerance)
    others = (
        degrees
        for count in range(1, 9)
        for degrees in itertools.combinations_with_replacement(DEGREES, count)
        if math.prod(degrees) * angle >= math.acosh(1 / tolerance)
    )
    best = min(others, key=lambda degrees: (products_of(degrees), -math.prod(degrees)))
    assert (products_of(chosen), math.prod(chosen)) == (products_of(best), math.prod(best))


@pytest.mark.parametrize("degree", DEGREES)
def test_scaled_steps_end_as_plain_ones(degree: int) -> None:
    """Once the interval is a point, the step is ``X (I + R + ... + R^(m-1))``: all coefficients are one."""
    assert coefficients(degree, 40.0) == pytest.approx([1.0] * len(coefficients(degree, 40.0)), rel=1e-12)
    r_BPP = torch.tensor([[[0.25]]], dtype=torch.float64)
    x_BPP = iterate(1 - r_BPP, torch.ones_like(r_BPP), r_BPP, [40.0], (degree,))
    assert float(x_BPP) == pytest.approx(sum(0.25**power for power in range(degree)), rel=1e-12)


def test_each_matrix_of_a_stack_has_its_own_scaling() -> None:
    value_BP = torch.stack([torch.linspace(1 / kappa, 1, 16, dtype=torch.float64) for kappa in (10.0, 1e3)])
    a_BPP = value_BP.diag_embed()
    c_B11 = torch.tensor([2 / 1.1, 2 / 1.001], dtype=torch.float64)[:, None, None]
    angles = [start_angle(10.0), start_angle(1e3)]
    x_BPP = iterate(a_BPP, c_B11, add_identity(-c_B11 * a_BPP, 1.0), angles, (5, 7))
    for row, condition in enumerate((10.0, 1e3)):
        alone_1P = _from_scaled_identity(value_BP[row : row + 1], condition, (5, 7))
        torch.testing.assert_close(1 - value_BP[row] * x_BPP[row].diagonal(), alone_1P[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["logarithmic", "two values"])
def test_rounding_stays_in_proportion_to_the_condition(dtype: torch.dtype, shape: str) -> None:
    """At a condition of 1e6 neither runs away; half the eigenvalues at the lower end are the worst we know."""
    condition, size = 1e6, 96
    gauss_PP = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis_PP: Tensor
    basis_PP, _ = torch.linalg.qr(gauss_PP)
    if shape == "logarithmic":
        value_P = torch.logspace(0, -6, size, dtype=torch.float64)
    else:
        value_P = torch.where(torch.arange(size) < size // 2, 1.0, 1 / condition).to(torch.float64)
    a_PP = basis_PP * value_P @ basis_PP.T
    a_BPP = a_PP.to(dtype)[None]
    c_B11 = a_BPP.new_full((1, 1, 1), 2 / (1 + 1 / condition))
    angle = start_angle(condition)
    degrees = degrees_for(angle, 1e-6)
    x_BPP = iterate(a_BPP, c_B11, add_identity(-c_B11 * a_BPP, 1.0), [angle], degrees)
    error = float(torch.linalg.matrix_norm(torch.eye(size, dtype=torch.float64) - a_PP @ x_BPP[0].double()))
    assert error <= 20 * torch.finfo(dtype).eps * condition + 1e-6 * math.sqrt(size)
