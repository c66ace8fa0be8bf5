from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from ascribe.errors import PlanExceedsSteps
from ascribe.lissa_bound import minimum_steps, steps_needed
from ascribe.status import SolveStatus
from worker.operators import Damped, RowsOperator
from worker.solvers.lissa import Lissa, LissaPlan
from worker.solvers.solve import solve
from worker.spectrum import largest_eigenvalue


def _rows(count: int = 200, size: int = 300, tail: float = 1.0) -> RowsOperator:
    """Gradients with a decaying spectrum and log-normal norms: the tail is what breaks uniform sampling."""
    generator = Generator().manual_seed(0)
    grad_NP = torch.randn(count, size, generator=generator) / torch.arange(1, size + 1).sqrt()
    return RowsOperator([grad_NP * (tail * torch.randn(count, 1, generator=generator)).exp() * 1e-3])


def _damped(relative: float, rows: RowsOperator | None = None) -> Damped:
    rows = rows or _rows()
    return Damped(rows, relative * largest_eigenvalue(rows, Generator().manual_seed(0)))


def _rhs(columns: int = 2) -> Tensor:
    return torch.randn(300, columns, generator=Generator().manual_seed(1))


@pytest.mark.parametrize("tail", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("relative", "tolerance"), [(0.1, 0.01), (0.01, 0.01), (0.003, 0.05), (0.01, 1e-4)])
def test_auto_reaches_its_tolerance_within_its_plan(tail: float, relative: float, tolerance: float) -> None:
    solution = solve(_damped(relative, _rows(tail=tail)), _rhs(), Lissa(tolerance=tolerance))
    assert solution.status is SolveStatus.CONVERGED
    assert float(solution.relative_residual_K.max()) <= tolerance
    plan = solution.state.plan
    assert plan.stability == pytest.approx(1)
    assert plan.predicted_residual <= tolerance
    assert solution.stats.iterations <= plan.steps
    assert solution.stats.plan is not None
    assert solution.stats.plan["max_squared_norm"] >= solution.stats.plan["trace"]


def _plan(lissa: Lissa, **changes: float) -> LissaPlan:
    measured = {"trace": 2.0, "largest_eigenvalue": 1.0, "max_squared_norm": 50.0, "damping": 0.01} | changes
    return lissa.plan(count=1000, **measured)


def test_the_plan_is_arithmetic() -> None:
    plan = _plan(Lissa())
    assert plan.batch_size == 8
    assert plan.step_size == pytest.approx(1 / (1 + 0.01 + 2 / 8))
    assert plan.steps >= steps_needed(plan.step_size * 0.01, 0.01)
    assert plan.steps % plan.anchor_every == 0
    anchors = plan.steps // plan.anchor_every
    assert plan.products == pytest.approx(anchors + (plan.steps - anchors) * 8 / 1000)


def test_a_batch_of_everything_has_no_noise_term() -> None:
    plan = _plan(Lissa(batch_size=5000))
    assert plan.batch_size == 1000
    assert plan.anchor_every == 1
    assert plan.step_size == pytest.approx(1 / 1.01)


def test_a_batch_larger_than_the_set_is_all_of_it_and_says_so() -> None:
    operator = _damped(0.1)
    solution = solve(operator, _rhs(), Lissa(batch_size=201))
    assert solution.status is SolveStatus.CONVERGED
    assert solution.stats.plan is not None
    assert solution.stats.plan["batch_size"] == 200
    assert "every step takes all of them" in solution.stats.notes[0]
    assert not solve(operator, _rhs(), Lissa(batch_size=200)).stats.notes


@pytest.mark.parametrize("tail", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("relative", [0.1, 0.02, 0.005])
@pytest.mark.parametrize("seed", range(3))
def test_the_prediction_is_a_certificate(tail: float, relative: float, seed: int) -> None:
    """For the steps a run took, whether it stopped early or not: the measured residual is at most twice it."""
    operator = _damped(relative, _rows(tail=tail))
    for lissa in (Lissa(seed=seed), Lissa(seed=seed, tolerance=1e-3), Lissa(seed=seed, steps=100)):
        solution = solve(operator, _rhs(), lissa)
        stats = solution.stats
        assert stats.plan is not None
        predicted = stats.plan["predicted_residual"]
        assert predicted == pytest.approx(math.exp(-stats.plan["step_size"] * operator.damping * stats.iterations))
        assert float(solution.relative_residual_K.max()) <= 2 * predicted
        assert stats.products <= math.ceil(solution.state.plan.products)


@pytest.mark.parametrize("tail", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_of_any_size_is_stable_whatever_the_tail(tail: float, batch_size: int) -> None:
    """Uniform draws with the trace for a constant ran away on real gradients: the draws are what keeps it exact."""
    solution = solve(_damped(0.1, _rows(tail=tail)), _rhs(), Lissa(batch_size=batch_size))
    assert solution.status is SolveStatus.CONVERGED
    assert solution.state.plan.stability == pytest.approx(1)


def test_the_default_damping_needs_no_more_steps_than_are_allowed() -> None:
    """0.005 of the largest eigenvalue: the plan is the same for every matrix, since the batch follows the trace."""
    for tail in (0.0, 1.0, 2.0):
        assert Lissa().init(_damped(0.005, _rows(tail=tail))).plan.steps < 1500


def test_a_small_residual_does_not_pass_for_a_small_error() -> None:
    """Nearly all of ``v`` lies along the largest eigenvalue; nearly all of the solution comes of the rest."""
    operator = _damped(0.005)
    matrix_PP = operator.matmul(torch.eye(300, dtype=torch.float64))
    _, basis_PP = torch.linalg.eigh(matrix_PP)
    rhs_PK = basis_PP[:, -1:] + 0.008 * basis_PP[:, :1]
    solution = solve(operator, rhs_PK, Lissa())
    exact_PK = torch.linalg.solve(matrix_PP, rhs_PK)
    assert float(solution.relative_residual_K.max()) < 0.001
    assert float((solution.x_PK - exact_PK).norm() / exact_PK.norm()) < 0.05


def test_growth_too_slow_to_run_away_at_once_ends_at_an_anchor() -> None:
    operator = _damped(0.01)
    plan = Lissa(batch_size=200).init(operator).plan
    solution = solve(operator, _rhs(), Lissa(batch_size=200, step_size=2.1 / plan.largest_eigenvalue))
    assert solution.status is SolveStatus.DIVERGED
    assert solution.stats.iterations <= 60


def test_explicit_values_are_honoured_and_warned_about() -> None:
    operator = _damped(0.1)
    auto = solve(operator, _rhs(), Lissa()).state.plan
    calm = solve(operator, _rhs(), Lissa(step_size=auto.step_size / 2, batch_size=50, steps=7))
    assert (calm.state.plan.step_size, calm.state.plan.batch_size) == (auto.step_size / 2, 50)
    assert calm.stats.iterations == 7
    assert not calm.stats.notes
    bold = solve(operator, _rhs(), Lissa(step_size=auto.step_size * 1.1))
    assert "may diverge" in bold.stats.notes[0]


@pytest.mark.parametrize("factor", [5.0, 100.0, 1e30])
def test_a_step_too_long_ends_early_as_diverged(factor: float) -> None:
    operator = _damped(0.01)
    step_size = factor * Lissa().init(operator).plan.step_size
    solution = solve(operator, _rhs(), Lissa(step_size=step_size, steps=1000))
    assert solution.status is SolveStatus.DIVERGED
    assert solution.stats.iterations <= 10


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"tolerance": 1e-4}, {"max_steps": 40}])
def test_a_plan_over_the_limit_names_a_damping_that_fits(options: dict[str, float]) -> None:
    lissa = Lissa(**options)  # type: ignore[arg-type]
    with pytest.raises(PlanExceedsSteps) as refusal:
        lissa.init(_damped(1e-4))
    assert all(way in refusal.value.detail for way in ("solver cg", "curvature ekfac"))
    numbers = re.search(r"damping of ([\d.e+-]+) relative .* \(([\d.e+-]+) absolute\)", refusal.value.detail)
    assert numbers
    assert lissa.init(_damped(float(numbers[1]))).plan.steps <= lissa.max_steps
    assert lissa.init(Damped(_rows(), float(numbers[2]))).plan.steps <= lissa.max_steps


def test_a_plan_over_the_limit_with_a_fixed_step_size() -> None:
    lissa = Lissa(step_size=Lissa().init(_damped(0.1)).plan.step_size)
    with pytest.raises(PlanExceedsSteps) as refusal:
        lissa.init(_damped(1e-4))
    numbers = re.search(r"\(([\d.e+-]+) absolute\)", refusal.value.detail)
    assert numbers
    assert lissa.init(Damped(_rows(), float(numbers[1]))).plan.steps <= lissa.max_steps


@pytest.mark.parametrize("relative", [1e-4, 1e-3, 0.01, 0.3])
@pytest.mark.parametrize("batch_size", [None, 3, 200])
def test_no_plan_beats_the_bound_at_submit(relative: float, batch_size: int | None) -> None:
    plan = Lissa(max_steps=10**9, batch_size=batch_size).init(_damped(relative)).plan
    assert plan.steps >= minimum_steps(relative, 0.01)


def test_the_bound_by_hand() -> None:
    assert minimum_steps(0.01, 0.01) == 466  # ln(100) * 1.01 / 0.01 = 465.1
    assert minimum_steps(0.0009, 0.01) > 5000 > minimum_steps(0.001, 0.01)


def test_batches_do_not_depend_on_the_columns_beside() -> None:
    operator, rhs_PK = _damped(0.01), _rhs(columns=6)
    rhs_PK[:, 3] = 0
    batch_PK = solve(operator, rhs_PK, Lissa()).x_PK
    alone_PK = solve(operator, rhs_PK[:, 5:], Lissa()).x_PK
    torch.testing.assert_close(batch_PK[:, 5:], alone_PK, rtol=1e-3, atol=float(alone_PK.abs().max()) * 1e-4)


def test_another_seed_draws_other_batches() -> None:
    operator, lissa = _damped(0.01), Lissa(steps=50)
    first, second = (solve(operator, _rhs(), replace(lissa, seed=seed)).x_PK for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "bad",
    [
        {"step_size": 0.0},
        {"step_size": float("nan")},
        {"batch_size": 0},
        {"steps": 0},
        {"steps": 5001},
        {"tolerance": 1.0},
        {"max_steps": 0},
    ],
)
def test_refuses_impossible_parameters(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Lissa(**bad)  # type: ignore[arg-type]
