"""A state of a related curvature saves products and leads to the same inverse."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator, LinearOperator, RowsOperator
from worker.solvers.schulz import Schulz, SchulzState
from worker.solvers.solve import solve

FLOAT64 = Schulz(precision="float64")
SIZE = 96


def _rows(count: int, *, seed: int = 0) -> Tensor:
    scale_P = torch.logspace(0, -1.5, SIZE, dtype=torch.float64)
    return torch.randn(count, SIZE, dtype=torch.float64, generator=Generator().manual_seed(seed)) * scale_P


def _dense(rows_NP: Tensor) -> DenseOperator:
    return DenseOperator(rows_NP.T @ rows_NP / len(rows_NP))


def _off(state: SchulzState, solver: Schulz) -> float:
    """The relative error of the refined inverse against the one of dense float64."""
    eye_PP = torch.eye(SIZE, dtype=torch.float64)
    inverse_PP = torch.linalg.inv(state.operator.matmul(eye_PP))
    solution = solve(state.operator, eye_PP, solver, state=state)
    assert solution.status is SolveStatus.CONVERGED
    return float((solution.x_PK - inverse_PP).norm() / inverse_PP.norm())


def _fact(state: SchulzState, name: str) -> float:
    assert state.stats.plan is not None
    return state.stats.plan[name]


@pytest.mark.parametrize("operator", [_dense(_rows(500)), RowsOperator([_rows(40)])], ids=["dense", "few rows"])
@pytest.mark.parametrize("solver", [FLOAT64, Schulz()], ids=["float64", "auto"])
@pytest.mark.parametrize("factor", [0.1, 10.0], ids=["down", "up"])
def test_a_path_of_dampings_saves_products_at_every_step(
    operator: LinearOperator, solver: Schulz, factor: float
) -> None:
    mean = operator.trace() / SIZE
    path = sorted((mean * relative for relative in (0.0001, 0.001, 0.01, 0.1)), reverse=factor < 1)
    states = [solver.init(Damped(operator, path[0]))]
    for damping in path[1:]:
        states.append(solver.init_from(Damped(operator, damping), states[-1]))
    for state in states:
        assert _off(state, solver) <= 1e-9
    for state in states[1:]:
        cold = solver.init(state.operator)
        assert _fact(state, "warm_start") == 1
        assert _fact(state, "cold_products") == _fact(cold, "planned_products")
        assert state.stats.products < cold.stats.products
    if solver is FLOAT64 and isinstance(operator, DenseOperator):
        # A decade of damping is an interval of condition 10, whatever the condition of the matrix.
        assert [_fact(state, "planned_products") for state in states[1:]] == [7, 7, 7]


@pytest.mark.parametrize("ratio", [1.0, 0.5, 1e-3])
def test_the_products_follow_from_the_ratio_of_the_dampings(ratio: float) -> None:
    operator = _dense(_rows(500))
    products = {
        damping: _fact(FLOAT64.init_from(Damped(operator, ratio * damping), FLOAT64.init(Damped(operator, damping))),
                       "planned_products")
        for damping in (1e-3, 1e-4)
    }  # fmt: skip
    assert len(set(products.values())) == 1
    assert products[1e-3] == {1.0: 1, 0.5: 5, 1e-3: 13}[ratio]


def test_a_small_growth_of_the_train_set_is_a_warm_start() -> None:
    rows_NP = _rows(2000)
    damping = 0.1 * _dense(rows_NP).trace() / SIZE
    before = FLOAT64.init(Damped(_dense(rows_NP[:1990]), damping))
    grown = Damped(_dense(rows_NP), damping)
    state = FLOAT64.init_from(grown, before)
    cold = FLOAT64.init(grown)
    assert _off(state, FLOAT64) <= 1e-9
    assert _fact(state, "warm_start") == 1
    assert state.stats.products < cold.stats.products
    assert state.stats.notes == ()


def test_a_large_growth_of_the_train_set_is_a_cold_start_and_says_so() -> None:
    rows_NP = _rows(2000)
    before = FLOAT64.init(Damped(_dense(rows_NP[:100]), 1e-3))
    state = FLOAT64.init_from(Damped(_dense(rows_NP), 1e-3), before)
    assert _off(state, FLOAT64) <= 1e-9
    assert _fact(state, "warm_start") == 0
    assert "cold" in state.stats.notes[0]
    assert torch.equal(state.inverse, FLOAT64.init(state.operator).inverse)


def test_what_is_of_no_use_is_not_used() -> None:
    operator = Damped(_dense(_rows(300)), 1e-3)
    good = FLOAT64.init(operator)
    failed = replace(good, status=SolveStatus.DIVERGED, inverse=torch.full_like(good.inverse, torch.nan))
    other_size = FLOAT64.init(Damped(DenseOperator(torch.eye(5, dtype=torch.float64)), 1.0))
    coarse = replace(good, stats=replace(good.stats, inverse_residual_bound=0.5))
    for earlier in (failed, other_size, coarse):
        state = FLOAT64.init_from(operator, earlier)
        assert _fact(state, "warm_start") == 0
        assert torch.equal(state.inverse, good.inverse)


def test_a_wrong_earlier_inverse_is_not_trusted() -> None:
    """Measured, not believed: the inverse of another matrix is no start, and one of twice the size is none either."""
    rows_NP = _rows(300)
    operator = Damped(_dense(rows_NP), 1e-3)
    right = FLOAT64.init(Damped(_dense(rows_NP), 1e-3))
    for wrong_PP in (2.1 * right.inverse, right.inverse.flip(0)):
        state = FLOAT64.init_from(operator, replace(right, inverse=wrong_PP))
        assert _fact(state, "warm_start") == 0
        assert _off(state, FLOAT64) <= 1e-9


def test_a_warm_start_has_the_same_bits_each_time() -> None:
    operator = _dense(_rows(500))
    first, second = (
        Schulz().init_from(Damped(operator, 1e-3), Schulz().init(Damped(operator, 1e-2))) for _ in range(2)
    )
    assert torch.equal(first.inverse, second.inverse)
    assert first.stats == second.stats


def test_a_curvature_that_is_no_longer_finite_is_named_so() -> None:
    good = FLOAT64.init(Damped(_dense(_rows(300)), 1e-3))
    spoilt = Damped(DenseOperator(torch.full((SIZE, SIZE), torch.nan, dtype=torch.float64)), 1e-3)
    assert FLOAT64.init_from(spoilt, good).status is SolveStatus.NON_FINITE


def test_a_state_read_back_is_as_good_a_start() -> None:
    operator = _dense(_rows(500))
    state = FLOAT64.init(Damped(operator, 1e-2))
    loaded = FLOAT64.load(Damped(operator, 1e-2), FLOAT64.save(state))
    warm, again = (FLOAT64.init_from(Damped(operator, 1e-3), earlier) for earlier in (state, loaded))
    assert torch.equal(warm.inverse, again.inverse)
    assert _fact(again, "warm_start") == 1


def test_published_starts_are_never_warm() -> None:
    published = Schulz(start="published")
    operator = Damped(_dense(_rows(300)), 1e-2)
    state = published.init(operator)
    assert torch.equal(published.init_from(operator, state).inverse, state.inverse)


def test_the_interval_of_a_path_holds_the_eigenvalues() -> None:
    operator = _dense(_rows(500))
    eye_PP = torch.eye(SIZE, dtype=torch.float64)
    for damping, new_damping in itertools.permutations((1e-4, 1e-2), 2):
        x_PP = torch.linalg.inv(operator.matmul(eye_PP) + damping * eye_PP)
        value_P = torch.linalg.eigvals((operator.matmul(eye_PP) + new_damping * eye_PP) @ x_PP).real
        low, high = sorted((1.0, new_damping / damping))
        assert low - 1e-9 <= float(value_P.min())
        assert float(value_P.max()) <= high + 1e-9
