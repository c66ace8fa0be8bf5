from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator
from worker.solvers.schulz import Schulz, _iterate, chebyshev_scales, chebyshev_steps
from worker.solvers.solve import solve


def _damped(condition: float, size: int = 64) -> Damped:
    """Eigenvalues of ``A`` from ``1 / condition`` to 1."""
    basis_PP: Tensor
    gauss_PP = torch.randn(size, size, dtype=torch.float64, generator=Generator().manual_seed(0))
    basis_PP, _ = torch.linalg.qr(gauss_PP)
    value_P = torch.logspace(0, -math.log10(condition), size, dtype=torch.float64) - 1 / condition
    matrix_PP = basis_PP * value_P @ basis_PP.T
    return Damped(DenseOperator((matrix_PP + matrix_PP.T) / 2), 1 / condition)


# GEMMs that numerics.md lists for a residual of 1e-6: 12, 18, 24, two a step and none for the first.
@pytest.mark.parametrize(("condition", "steps"), [(1.0, 1), (1e2, 7), (1e4, 10), (1e6, 13)])
def test_the_number_of_steps_is_the_least_that_the_bound_allows(condition: float, steps: int) -> None:
    assert chebyshev_steps(condition, 1e-6) == steps


@pytest.mark.parametrize("condition", [2.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
def test_each_step_is_the_chebyshev_polynomial_and_reaches_its_bound(condition: float, steps: int) -> None:
    """``I - A X_k = T_{2^k}(affine(A)) / T_{2^k}(affine(0))``, checked on every eigenvalue of a diagonal matrix."""
    lower, upper = 1 / condition, 1.0
    value_P = torch.linspace(lower, upper, 201, dtype=torch.float64)
    error_P = 1 - value_P * _iterate(value_P.diag(), lower, upper, steps).diagonal()

    degree = 2**steps
    t_P = (upper + lower - 2 * value_P) / (upper - lower)
    at_zero = math.cosh(degree * 2 * math.atanh(1 / math.sqrt(condition)))
    torch.testing.assert_close(
        error_P, torch.cos(degree * torch.acos(t_P.clamp(-1, 1))) / at_zero, rtol=1e-6, atol=1e-6
    )
    assert float(error_P.abs().max()) <= (1 + 1e-6) / at_zero + 1e-15


def test_scales_fall_from_two_to_one() -> None:
    scales = chebyshev_scales(1e-6, 1.0, 16)
    assert scales == sorted(scales, reverse=True)
    assert scales[0] == pytest.approx(2, rel=1e-4)
    assert scales[-1] == 1.0


@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4, 1e6, 1e8])
def test_the_bound_holds_for_every_column(condition: float) -> None:
    operator = _damped(condition)
    state = Schulz().init(operator)
    eye_PP = torch.eye(64, dtype=torch.float64)
    residual_K = (operator.matmul(state.inverse_PP) - eye_PP).norm(dim=0)
    assert state.stats.inverse_residual_bound is not None
    assert float(residual_K.max()) <= state.stats.inverse_residual_bound <= 1e-6
    assert state.stats.condition_bound is not None
    assert state.stats.condition_bound >= condition * (1 - 1e-9)


@pytest.mark.parametrize(("condition", "precision"), [(1e3, "float32+float64"), (1e7, "float64")])
def test_the_precision_follows_the_condition(condition: float, precision: str) -> None:
    assert Schulz().init(_damped(condition)).stats.precision == precision


def test_published_steps_are_two_hidden_dampings() -> None:
    operator = _damped(1e2)
    solution = solve(operator, torch.ones(64, 1), Schulz(start="published", iterations=15))
    hidden = 0.001 + 1 / (5e-5 * 2**15)
    explained_PK = torch.linalg.solve(
        operator.matmul(torch.eye(64, dtype=torch.float64)) + hidden * torch.eye(64, dtype=torch.float64),
        torch.ones(64, 1, dtype=torch.float64),
    )
    # (1 - exp(-t)) / t against 1 / (1 + t): the same thing told in one word, within a third.
    ratio = float((solution.x_PK / explained_PK).median())
    assert 0.9 < ratio < 1.4
    assert solution.status is SolveStatus.MAX_ITERATIONS
    assert "0.001" in solution.stats.notes[0]
    assert "0.61" in solution.stats.notes[0]


def test_the_published_start_runs_away_from_a_large_matrix() -> None:
    operator = Damped(DenseOperator(1e5 * torch.eye(4, dtype=torch.float64)), 1.0)
    assert solve(operator, torch.ones(4, 1), Schulz(start="published")).status is SolveStatus.DIVERGED


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"iterations": 0}])
def test_refuses_impossible_parameters(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Schulz(**bad)  # type: ignore[arg-type]
