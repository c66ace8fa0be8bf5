from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from ascribe.errors import LimitExceeded
from ascribe.planning import costs
from ascribe.planning.choose import CONSIDERED, Plan, plan
from ascribe.planning.from_spec import problem_of
from ascribe.planning.iterations import cg_iterations
from ascribe.planning.problem import Problem
from ascribe.planning.rates import CPU
from ascribe.settings import Settings
from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import PAIRS
from benchmarks import auto
from tests.support.jobs import make_spec
from worker import rates
from worker.operators import Damped, DenseOperator
from worker.solvers.cg import Cg
from worker.solvers.cholesky import Cholesky
from worker.solvers.lissa import Lissa
from worker.solvers.solve import solve

SETTINGS = Settings()
MINILM = (BlockShape("query", rank=8, long_side=384),) * 24


def _problem(curvature: str = "gfim", **changes: Any) -> Problem:
    problem = Problem(
        curvature=curvature,
        blocks=MINILM,
        train_rows=2000,
        columns=1,
        classes=2,
        damping=None if curvature == "none" else ("relative", 0.1),
        tolerance=1e-6,
    )
    return replace(problem, **changes)


def _candidates(made: Plan) -> dict[str, Any]:
    return {candidate.solver: candidate for candidate in made.candidates}


def test_the_limits_are_those_of_the_solvers() -> None:
    assert Cholesky().max_size == costs.CHOLESKY_SIZE
    assert Cg().max_iterations == costs.CG_ITERATIONS
    assert Lissa().max_steps == costs.LISSA_STEPS


def test_every_pair_of_the_table_is_weighed() -> None:
    for curvature, solvers in PAIRS.items():
        assert set(solvers) - {"auto"} <= set(CONSIDERED[curvature])


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("damping", [1e1, 1e-1, 1e-3])
def test_conjugate_gradients_stay_within_the_steps_that_bounds_alone_predict(decay: float, damping: float) -> None:
    value_P = torch.arange(1, 301, dtype=torch.float64) ** -decay
    operator = Damped(DenseOperator(value_P.diag()), damping)
    rhs_PK = torch.randn(300, 2, dtype=torch.float64, generator=Generator().manual_seed(0))
    steps = solve(operator, rhs_PK, Cg(rank=0)).stats.iterations
    predicted = cg_iterations(condition=1 + 1 / damping, tail=float(value_P.sum()) / damping, size=300, tolerance=1e-6)
    assert steps <= 1.1 * predicted + 1


def test_outliers_cost_a_step_each_and_a_flat_spectrum_the_root_of_the_condition() -> None:
    flat = cg_iterations(condition=1e4, tail=1e12, size=10**6, tolerance=1e-6)
    assert flat == pytest.approx(math.sqrt(1e4) / 2 * math.log(2e6), rel=0.01)
    assert cg_iterations(condition=1e4, tail=1e4, size=10**6, tolerance=1e-6) < flat / 4
    assert cg_iterations(condition=1.0, tail=0.0, size=10**6, tolerance=1e-6) == 1
    assert cg_iterations(condition=1e9, tail=1e9, size=10, tolerance=1e-6) == 20


@pytest.mark.parametrize("curvature", CONSIDERED)
def test_a_plan_picks_the_cheapest_that_is_feasible_and_accounts_for_all(curvature: str) -> None:
    made = plan(_problem(curvature))
    candidates = _candidates(made)
    assert set(candidates) == set(CONSIDERED[curvature])
    assert candidates[made.pick].feasible
    assert made.seconds == min(candidate.seconds for candidate in made.candidates if candidate.feasible)
    assert all((candidate.reason is None) is candidate.feasible for candidate in made.candidates)
    assert made.why.startswith(f"{made.pick}: ")
    assert made == plan(_problem(curvature))


def test_many_right_hand_sides_turn_an_iteration_into_a_factor() -> None:
    problem = _problem(
        "empirical_fisher", damping=("relative_to_largest", 0.005), blocks=(BlockShape("large", 8, 10_000),)
    )
    assert plan(problem).pick == "cg"
    assert plan(replace(problem, columns=500)).pick == "cholesky"


def test_a_matrix_too_large_to_factor_leaves_conjugate_gradients() -> None:
    made = plan(_problem("gauss_newton", train_rows=20_000))
    assert made.pick == "cg"
    assert not _candidates(made)["cholesky"].feasible
    assert "20000 x 20000" in made.why


def test_a_hessian_known_by_products_alone_is_not_factored_and_costs_the_model() -> None:
    cached = _problem("gauss_newton", damping=("relative_to_largest", 0.05))
    made = plan(replace(cached, rows_cached=False))
    assert made.pick == "cg"
    assert made.seconds > 10 * _candidates(plan(cached))["cg"].seconds
    slower = plan(replace(cached, rows_cached=False), replace(CPU, model_rows_per_second=CPU.model_rows_per_second / 2))
    assert slower.seconds == pytest.approx(2 * made.seconds, rel=0.1)


def test_more_classes_mean_more_rows() -> None:
    few, many = (_candidates(plan(_problem("gauss_newton", classes=classes)))["cholesky"] for classes in (2, 5))
    assert many.seconds > 10 * few.seconds


def test_memory_rules_out_who_needs_more_of_it() -> None:
    problem = _problem("gfim", blocks=(BlockShape("large", 8, 4096),))
    needed = _candidates(plan(problem))
    limit = needed["cg"].bytes + 1
    assert needed["cholesky"].bytes > limit
    made = plan(replace(problem, memory_bytes=limit))
    assert made.pick == "cg"
    assert "MiB" in made.why
    with pytest.raises(LimitExceeded, match="takes"):
        plan(replace(problem, memory_bytes=1000))


def test_self_influence_is_not_iterated() -> None:
    made = plan(_problem("empirical_fisher", damping=("relative_to_largest", 0.005), self_influence=True))
    assert made.pick == "cholesky"
    assert "every train row" in (_candidates(made)["cg"].reason or "")


def test_unnormalized_gfim_is_worse_conditioned_by_its_rank() -> None:
    (plain, *_), (unnormalized, *_) = _problem("gfim").systems(), _problem("gfim_unnormalized").systems()
    assert unnormalized.condition - 1 == pytest.approx(8 * (plain.condition - 1))
    assert plain.condition == pytest.approx(1 + 384 / 0.1)


@pytest.mark.parametrize("relative", [0.9e-3, 1e-2, 0.1, 1e30])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_lissa_is_not_promised_fewer_steps_than_it_plans(relative: float, tolerance: float) -> None:
    """Else ``auto`` picks it, and its own limit ends the job."""
    problem = _problem("empirical_fisher", damping=("relative_to_largest", relative), tolerance=tolerance)
    predicted = _candidates(plan(problem))["lissa"].iterations
    for trace in (1.0, 3.3, 20.0):
        planned = Lissa(tolerance=tolerance, max_steps=10**9).plan(
            trace=trace, largest_eigenvalue=1.001, max_squared_norm=1.0, count=2000, damping=relative
        )
        assert planned.steps <= predicted


@pytest.mark.parametrize("curvature", ["gfim", "empirical_fisher", "gauss_newton"])
def test_what_float64_cannot_hold_is_not_promised(curvature: str) -> None:
    plan(_problem(curvature, damping=("relative_to_largest", 1e-9)))
    with pytest.raises(LimitExceeded, match="rounding may leave more than 1e-06 at a condition of 1e"):
        plan(_problem(curvature, damping=("relative_to_largest", 1e-12)))
    plan(_problem("ekfac", damping=("relative_to_largest", 1e-12)))


def test_what_was_assumed_of_an_absolute_damping_is_said() -> None:
    assert "nothing is known" in plan(_problem(damping=("absolute", 1e-3))).why
    assert "nothing is known" not in plan(_problem()).why


@pytest.mark.parametrize(("per_row", "columns"), [(True, 7), (False, 1)])
def test_a_job_becomes_a_problem(per_row: bool, columns: int) -> None:
    spec = make_spec(
        damping={"relative_to_largest": 0.5}, output={"per_validation_row": per_row, "self_influence": True}
    )
    problem = problem_of(spec, MINILM, train_rows=2000, questions=6, classes=2, settings=SETTINGS)
    expected = _problem(
        columns=columns,
        damping=("relative_to_largest", 0.5),
        self_influence=True,
        memory_bytes=SETTINGS.max_solve_bytes,
    )
    assert problem == expected
    none = make_spec(curvature="none", solver="identity")
    assert problem_of(none, MINILM, train_rows=1, questions=1, classes=2, settings=SETTINGS).damping is None


def test_rates_are_measured_quickly_and_once() -> None:
    started = time.thread_time()
    first = rates.measure()
    assert first.float64_flops > 0
    assert first.float32_flops > 0
    assert first.bytes_per_second > 0
    assert rates.measure() is first
    assert time.thread_time() - started < 2, "a tenth of a second on a server's processor"


def test_the_benchmark_times_every_candidate_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "bench" / "auto.json"
    rows = list(auto.measure(auto.QUICK_GRID, kept))
    assert len(rows) == len(auto.QUICK_GRID) + 1
    assert all(name in rows[0].ours + rows[0].beside for name in ("cholesky", "schulz", "cg"))
    monkeypatch.setattr(auto, "solve", None)
    assert list(auto.measure(auto.QUICK_GRID, kept)) == rows
