"""ASTRA where EK-FAC is right, where it is not, and against LiSSA on the same rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from ascribe.errors import PlanExceedsSteps
from ascribe.status import SolveStatus
from worker.curvature.ekfac import ekfac
from worker.curvature.kfac import kfac
from worker.eigen_operators import PreconditionedOperator
from worker.gradients.factors import KroneckerFactors
from worker.operators import Damped, RowsOperator
from worker.solvers.astra import Astra, AstraPlan
from worker.solvers.lissa import Lissa
from worker.solvers.solve import solve
from worker.spectrum import largest_eigenvalue

BLOCKS, RANK, LONG = 3, 4, 10
SIZE = BLOCKS * RANK * LONG
ROWS = 1000


def _operator(shared: float = 0.0, tail: float = 0.5) -> PreconditionedOperator:
    """Rows ``g x^T`` in three blocks with decaying spectra, and EK-FAC of each block from these rows.

    ``shared`` adds one direction that runs through all blocks, which no block-diagonal matrix sees whole.
    """
    generator = Generator().manual_seed(0)
    blocks, chunks = [], []
    along_N = torch.randn(ROWS, dtype=torch.float64, generator=generator)
    for _ in range(BLOCKS):
        g_NR = torch.randn(ROWS, RANK, dtype=torch.float64, generator=generator) * 3.0 ** -torch.arange(RANK)
        x_ND = torch.randn(ROWS, LONG, dtype=torch.float64, generator=generator) * 2.0 ** -torch.arange(LONG)
        scale_N = (tail * torch.randn(ROWS, dtype=torch.float64, generator=generator)).exp()
        common_RD = torch.randn(RANK, LONG, dtype=torch.float64, generator=generator) * 2.0 ** -torch.arange(LONG)
        grad_NRD = scale_N[:, None, None] * g_NR[:, :, None] * x_ND[:, None, :]
        grad_NRD = grad_NRD + shared * along_N[:, None, None] * common_RD
        left_RR = torch.einsum("nrd,nsd->rs", grad_NRD, grad_NRD) / ROWS
        right_DD = torch.einsum("nrd,nre->de", grad_NRD, grad_NRD) / ROWS
        chunks.append(grad_NRD.flatten(1))
        blocks.append(ekfac(kfac("block", KroneckerFactors(left_RR, right_DD)), chunks[-1:], ROWS))
    return PreconditionedOperator(RowsOperator([torch.cat(chunks, dim=1)]), blocks)


def _damped(relative: float, operator: PreconditionedOperator | None = None) -> Damped:
    operator = operator or _operator()
    return Damped(operator, relative * largest_eigenvalue(operator, Generator().manual_seed(0)))


def _rhs(columns: int = 2) -> Tensor:
    return torch.randn(SIZE, columns, dtype=torch.float64, generator=Generator().manual_seed(1))


def _dense(operator: Damped) -> Tensor:
    return operator.matmul(torch.eye(SIZE, dtype=torch.float64))


@pytest.mark.parametrize("tail", [0.0, 0.8])
@pytest.mark.parametrize(("relative", "tolerance"), [(0.1, 0.01), (1e-3, 0.01), (1e-4, 1e-6)])
def test_auto_reaches_its_tolerance_within_its_plan(tail: float, relative: float, tolerance: float) -> None:
    operator = _damped(relative, _operator(tail=tail))
    solution = solve(operator, _rhs(), Astra(tolerance=tolerance))
    assert solution.status is SolveStatus.CONVERGED
    assert float(solution.relative_residual_K.max()) <= tolerance
    exact_PK = torch.linalg.solve(_dense(operator), _rhs())
    assert float((_dense(operator) @ (solution.x_PK - exact_PK)).norm() / _rhs().norm()) <= tolerance
    plan = solution.state.plan
    assert plan.stability == pytest.approx(1)
    assert plan.predicted_residual <= tolerance
    assert solution.stats.iterations <= plan.steps
    assert not solution.stats.notes


def test_a_small_residual_does_not_pass_for_a_small_error() -> None:
    """Nearly all of ``v`` lies along the largest eigenvalue; nearly all of the solution comes of the rest."""
    operator = _damped(0.05, _operator(shared=1.0))
    _, basis_PP = torch.linalg.eigh(_dense(operator))
    rhs_PK = basis_PP[:, -1:] + 0.008 * basis_PP[:, :1]
    solution = solve(operator, rhs_PK, Astra())
    exact_PK = torch.linalg.solve(_dense(operator), rhs_PK)
    assert float((solution.x_PK - exact_PK).norm() / exact_PK.norm()) < 0.01


def test_the_prediction_is_for_the_steps_that_a_run_took() -> None:
    operator = _damped(1e-3, _operator(tail=0.8))
    for steps in (None, 2, 5):
        solution = solve(operator, _rhs(), Astra(steps=steps, tolerance=1e-4))
        assert solution.stats.plan is not None
        predicted = solution.stats.plan["predicted_residual"]
        assert predicted >= solution.state.plan.predicted_residual
        assert float(solution.relative_residual_K.max()) <= predicted


def test_the_plan_bounds_the_preconditioned_spectrum() -> None:
    operator = _damped(1e-3)
    examples = operator.operator
    assert isinstance(examples, PreconditionedOperator)
    root_PP = examples.precondition_root(torch.eye(SIZE, dtype=torch.float64), operator.damping)
    value_P = torch.linalg.eigvalsh(root_PP @ _dense(operator) @ root_PP)
    plan = Astra().init(operator).plan
    assert value_P[-1] <= plan.largest_eigenvalue <= 1.02 * value_P[-1]
    assert 0.99 * value_P[0] <= plan.smallest_eigenvalue <= value_P[0] * (1 + 1e-9)


def test_the_noise_is_that_of_a_batch_of_one() -> None:
    """For rows drawn by their squared norms it has a closed form."""
    operator = _damped(1e-2)
    examples = operator.operator
    assert isinstance(examples, PreconditionedOperator)
    rows = examples.examples
    assert isinstance(rows, RowsOperator)
    grad_NP = torch.cat(list(rows.slabs()))
    white_NP = examples.precondition_root(grad_NP.T, operator.damping).T
    ratio_N = rows.trace() * white_NP.square().sum(1) / grad_NP.square().sum(1)
    white_PP = white_NP.T @ white_NP / ROWS
    second = float((ratio_N * white_NP.square().sum(1)).mean())
    expected = (second - float(white_PP.square().sum())) / float(white_PP.trace())
    assert Astra().init(operator).plan.noise == pytest.approx(expected, rel=0.25)


def test_at_weak_damping_it_takes_a_small_part_of_lissas_steps_and_products() -> None:
    operator = _damped(1e-3)
    ours = solve(operator, _rhs(), Astra()).stats
    theirs = solve(operator, _rhs(), Lissa(max_steps=10**4)).stats
    assert ours.iterations * 100 < theirs.iterations
    assert ours.products * 5 < theirs.products


def test_where_a_direction_runs_through_all_blocks_the_plan_says_that_the_condition_is_worse() -> None:
    operator = _damped(0.01, _operator(shared=30.0))
    solution = solve(operator, _rhs(), Astra())
    assert solution.status is SolveStatus.CONVERGED
    assert solution.state.plan.condition > solution.state.plan.plain_condition
    assert "worse" in solution.stats.notes[0]


def test_explicit_values_are_honoured_and_warned_about() -> None:
    operator = _damped(1e-3)
    auto = Astra().init(operator).plan
    calm = solve(operator, _rhs(), Astra(step_size=auto.step_size / 2, batch_size=auto.batch_size, steps=3))
    assert (calm.state.plan.step_size, calm.state.plan.batch_size) == (auto.step_size / 2, auto.batch_size)
    assert calm.stats.iterations <= 3
    assert not calm.stats.notes
    bold = solve(operator, _rhs(), Astra(step_size=auto.step_size * 1.1))
    assert "may diverge" in bold.stats.notes[0]


@pytest.mark.parametrize(("factor", "batch_size"), [(5.0, None), (100.0, None), (1e30, None), (100.0, 5)])
def test_a_step_too_long_ends_early_as_diverged(factor: float, batch_size: int | None) -> None:
    operator = _damped(1e-3)
    step_size = factor * Astra(batch_size=batch_size).init(operator).plan.step_size
    solution = solve(operator, _rhs(), Astra(step_size=step_size, batch_size=batch_size, steps=1000))
    assert solution.status is SolveStatus.DIVERGED
    assert solution.stats.iterations <= 10


def test_a_plan_over_the_limit_says_what_ekfac_did_for_the_condition() -> None:
    with pytest.raises(PlanExceedsSteps, match=r"max_steps is 5\. EK-FAC takes the condition from .* use CG"):
        Astra(max_steps=5).init(_damped(1e-4, _operator(shared=30.0)))


def _plan(astra: Astra, **changes: float) -> AstraPlan:
    measured = {
        "largest_eigenvalue": 2.0,
        "smallest_eigenvalue": 0.01,
        "noise": 10.0,
        "plain_condition": 1e4,
        "norms": 10.0,
    } | changes
    return astra.plan(count=1000, **measured)


def test_the_plan_is_arithmetic() -> None:
    plan = _plan(Astra())
    assert plan.batch_size == 20
    assert plan.step_size == pytest.approx(1 / (2 + 10 / 20))
    assert plan.anchor_every == 125  # half of 1 / (0.4 * 0.01)
    assert plan.steps == (14 + 1) * 125  # ln(100 * 10) / (0.4 * 0.01) is 1727 steps, 13.8 anchors
    assert plan.condition == pytest.approx(200)
    exact = _plan(Astra(batch_size=5000))
    assert (exact.batch_size, exact.anchor_every, exact.step_size) == (1000, 1, 0.5)


def test_another_seed_draws_other_batches() -> None:
    operator, astra = _damped(0.05, _operator(shared=30.0)), Astra(batch_size=20)
    first, second = (solve(operator, _rhs(), replace(astra, seed=seed)).x_PK for seed in (0, 1))
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
        Astra(**bad)  # type: ignore[arg-type]
