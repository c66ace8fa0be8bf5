from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Generator, Tensor

from ascribe.planning.schulz_degrees import start_angle
from ascribe.status import SolveStatus
from worker.operators import Damped, DenseOperator, RowsOperator
from worker.solvers.schulz import Schulz
from worker.solvers.schulz_inverse import choose, cold_start, invert
from worker.solvers.solve import relative_residual, solve


def _damped(condition: float, size: int = 64, seed: int = 0) -> Damped:
    """Eigenvalues of ``A`` from ``1 / condition`` to 1."""
    basis_PP: Tensor
    gauss_PP = torch.randn(size, size, dtype=torch.float64, generator=Generator().manual_seed(seed))
    basis_PP, _ = torch.linalg.qr(gauss_PP)
    value_P = torch.logspace(0, -math.log10(condition), size, dtype=torch.float64) - 1 / condition
    matrix_PP = basis_PP * value_P @ basis_PP.T
    return Damped(DenseOperator((matrix_PP + matrix_PP.T) / 2), 1 / condition)


def _few_rows(condition: float, count: int = 20, size: int = 64) -> Damped:
    grad_NP = torch.randn(count, size, generator=Generator().manual_seed(1))
    rows = RowsOperator([grad_NP[:7], grad_NP[7:]])
    largest = float(torch.linalg.eigvalsh(rows.matmul(torch.eye(size, dtype=torch.float64)))[-1])
    return Damped(rows, largest / (condition - 1))


def _identity(operator: Damped) -> Tensor:
    return torch.eye(operator.size, dtype=torch.float64)


def _inverse(operator: Damped) -> Tensor:
    inverse_PP: Tensor = torch.linalg.inv(operator.matmul(_identity(operator)))
    return inverse_PP


def _off(operator: Damped, x_PP: Tensor) -> float:
    """The relative error of an inverse."""
    inverse_PP = _inverse(operator)
    return float((x_PP - inverse_PP).norm() / inverse_PP.norm())


@pytest.mark.parametrize("precision", ["auto", "float64"])
@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4, 1e6, 1e8])
def test_the_bound_holds_for_every_column(condition: float, precision: str) -> None:
    operator = _damped(condition)
    solver = Schulz(precision=precision)  # type: ignore[arg-type]
    state = solver.init(operator)
    residual_K = relative_residual(operator, state.inverse, _identity(operator))
    bound = state.stats.inverse_residual_bound
    assert bound is not None
    assert float(residual_K.max()) <= bound <= 1e-6 * math.sqrt(operator.size)
    assert state.stats.condition_bound is not None
    assert state.stats.condition_bound >= condition * (1 - 1e-9)


def test_fifteen_products_reach_1e_6_at_a_condition_bound_of_1e4() -> None:
    """The published start takes 64 (numerics.md, section 2)."""
    operator = _damped(1e2, size=384)
    bounded = Damped(operator.operator, operator.operator.norm_bound() / (1e4 - 1))
    state = Schulz(precision="float64").init(bounded)
    assert state.stats.plan is not None
    assert state.stats.condition_bound == pytest.approx(1e4)
    assert state.stats.plan["planned_products"] == 15
    assert state.stats.products == 16  # one measures
    assert float(relative_residual(bounded, state.inverse, _identity(bounded)).max()) <= 1e-6


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5, 1e6])
@pytest.mark.parametrize("precision", ["auto", "float64", "float32", "bfloat16"])
@pytest.mark.parametrize("build", [_damped, _few_rows])
def test_a_solution_is_refined_to_the_float64_inverse(
    build: Callable[[float], Damped], precision: str, condition: float
) -> None:
    operator = build(condition)
    solution = solve(operator, _identity(operator), Schulz(precision=precision))  # type: ignore[arg-type]
    assert solution.status is SolveStatus.CONVERGED
    assert _off(operator, solution.x_PK) <= 1e-9


@pytest.mark.parametrize(("condition", "precision"), [(1e3, "float32+float64"), (1e7, "float64")])
def test_the_precision_follows_the_condition(condition: float, precision: str) -> None:
    state = Schulz().init(_damped(condition))
    assert state.stats.precision == precision
    assert state.stats.notes == ()


def test_low_precision_that_ran_away_is_taken_again_in_float64_and_said() -> None:
    operator = _damped(1e5)
    state = Schulz(precision="bfloat16").init(operator)
    exact = Schulz(precision="float64").init(operator)
    assert state.stats.precision == "float64"
    assert torch.equal(state.inverse, exact.inverse)
    assert state.stats.products > exact.stats.products
    assert "bfloat16" in state.stats.notes[0]
    assert "float64" in state.stats.notes[0]


def test_low_precision_is_kept_where_the_measured_error_allows() -> None:
    state = Schulz(precision="bfloat16").init(_damped(10.0))
    assert state.stats.precision == "bfloat16+float64"
    assert state.stats.plan is not None
    assert 0 < state.stats.plan["low_precision_products"] < state.stats.products
    assert state.stats.notes == ()


class _Understated(DenseOperator):
    """Says of itself that its largest eigenvalue is one percent below what it is."""

    def norm_bound(self) -> float:
        return 0.99 * float(torch.linalg.eigvalsh(self.matrix_PP)[-1])


@pytest.mark.parametrize("precision", ["auto", "float64"])
def test_a_bound_that_does_not_hold_ends_as_diverged_with_the_reason(precision: str) -> None:
    operator = _damped(1e4)
    assert isinstance(operator.operator, DenseOperator)
    understated = Damped(_Understated(operator.operator.matrix_PP), operator.damping)
    solver = Schulz(precision=precision)  # type: ignore[arg-type]
    solution = solve(understated, torch.ones(64, 1), solver)
    assert solution.status is SolveStatus.DIVERGED
    assert "bound" in solution.stats.notes[-1]


def test_a_condition_beyond_float64_is_not_called_indefinite() -> None:
    state = Schulz(tolerance=0.4).init(Damped(DenseOperator(torch.diag(torch.tensor([1.0, 0.0]).double())), 1e-18))
    assert state.status is SolveStatus.DIVERGED
    assert "float64" in state.stats.notes[-1]


def test_an_indefinite_matrix_is_named_so_with_the_reason() -> None:
    operator = Damped(DenseOperator(torch.diag(torch.tensor([1.0, 0.5, -0.3], dtype=torch.float64))), 0.1)
    state = Schulz().init(operator)
    assert state.status is SolveStatus.NOT_POSITIVE_DEFINITE
    assert "zero" in state.stats.notes[-1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_curvature_that_is_not_finite_is_named_so_and_harms_no_other(value: float) -> None:
    spoilt_PP = torch.eye(64, dtype=torch.float64)
    spoilt_PP[3, 4] = value
    good = _damped(1e2)
    spoilt, whole = Schulz().init_all([Damped(DenseOperator(spoilt_PP), 0.1), good])
    assert spoilt.status is SolveStatus.NON_FINITE
    assert torch.equal(whole.inverse, Schulz().init(good).inverse)
    assert solve(spoilt.operator, torch.ones(64, 1), Schulz(), state=spoilt).status is SolveStatus.NON_FINITE


@pytest.mark.parametrize("size", [1, 2, 9])
def test_zeros_leave_v_over_damping(size: int) -> None:
    operator = Damped(DenseOperator(torch.zeros(size, size, dtype=torch.float64)), 0.25)
    solution = solve(operator, torch.ones(size, 1), Schulz())
    assert solution.status is SolveStatus.CONVERGED
    torch.testing.assert_close(solution.x_PK, torch.full((size, 1), 4.0, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_matrix_of_one_number() -> None:
    solution = solve(Damped(DenseOperator(torch.tensor([[3.0]]).double()), 0.5), torch.ones(1, 1), Schulz())
    assert float(solution.x_PK) == pytest.approx(1 / 3.5, rel=1e-12)


@pytest.mark.parametrize("row", [torch.ones(1, 5), torch.zeros(1, 5), torch.full((1, 1), 2.0)])
def test_one_train_row_is_the_closed_form(row: Tensor) -> None:
    """Sherman & Morrison: ``(v - g (g v) / (lambda + g^2)) / lambda``."""
    operator = Damped(RowsOperator([row]), 0.1)
    v_PK = torch.arange(1.0, operator.size + 1, dtype=torch.float64)[:, None]
    g_P1 = row.double().T
    expected_PK = (v_PK - g_P1 * (g_P1 * v_PK).sum() / (0.1 + g_P1.square().sum())) / 0.1
    solution = solve(operator, v_PK, Schulz())
    assert solution.status is SolveStatus.CONVERGED
    torch.testing.assert_close(solution.x_PK, expected_PK, rtol=1e-12, atol=1e-12)


def test_few_rows_are_inverted_through_their_gram_matrix() -> None:
    operator = _few_rows(1e4)
    state = Schulz().init(operator)
    assert state.inverse.shape == (20, 20)
    x_PK, _, _ = Schulz().compute(state, _identity(operator))
    assert _off(operator, x_PK) <= 1e-9
    bound = state.stats.inverse_residual_bound
    assert bound is not None
    raw_PP = Schulz()._apply(state, _identity(operator))
    assert float(relative_residual(operator, raw_PP, _identity(operator)).max()) <= bound <= 1e-5


def test_many_rows_are_inverted_as_their_matrix() -> None:
    rows = RowsOperator([torch.randn(90, 24, generator=Generator().manual_seed(2))])
    dense = DenseOperator(rows.matmul(torch.eye(24, dtype=torch.float64)))
    through_rows, whole = (Schulz().init(Damped(operator, 0.1)) for operator in (rows, dense))
    torch.testing.assert_close(through_rows.inverse, whole.inverse, rtol=1e-9, atol=1e-9)


def test_many_blocks_have_the_bits_of_one() -> None:
    operators = [_damped(10.0 ** (1 + i % 4), size, seed=i) for i, size in enumerate((24, 33, 24, 24, 33, 7, 24))]
    operators.append(_few_rows(1e3))
    for memory_bytes in (1, 3 * 8 * 8 * 24**2, 2**30):
        states = list(Schulz(memory_bytes=memory_bytes).init_all(operators))
        for operator, state in zip(operators, states, strict=True):
            alone = Schulz().init(operator)
            assert state.operator is operator
            assert torch.equal(state.inverse, alone.inverse)
            assert state.stats == alone.stats


def test_blocks_are_taken_as_the_memory_budget_allows() -> None:
    taken: list[int] = []

    def operators() -> Iterator[Damped]:
        for index in range(6):
            taken.append(index)
            yield _damped(1e2, size=16)

    states = Schulz(memory_bytes=2 * 8 * 8 * 16**2).init_all(operators())
    assert taken == []
    next(states)
    assert taken == [0, 1, 2]  # two fit, the third was looked at
    assert len(list(states)) == 5


@pytest.mark.parametrize("size", [24, 33])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_stack_inverts_each_of_its_matrices_as_if_alone(size: int, precision: str) -> None:
    """As an accelerator takes them: of three blocks with bounds of their own the second cannot be inverted."""
    blocks = [_damped(1e3, size, seed=0), Damped(DenseOperator(-torch.eye(size, dtype=torch.float64)), 0.1)]
    blocks.append(Damped(_damped(1e3, size, seed=2).operator, 2e-3))
    a_BPP = torch.stack([block.matmul(_identity(block)) for block in blocks])
    lower_B, upper_B = [1e-3, 1e-3, 2e-3], [1.2, 1.2, 1.3]
    plan = choose(start_angle(1.2e3), 1.2e3, 1e-6, size, precision)  # type: ignore[arg-type]
    stacked = invert(a_BPP, cold_start(a_BPP, lower_B, upper_B), plan, [1e-6] * 3)
    assert not stacked[1].is_contraction
    for index in (0, 2):
        part_BPP = a_BPP[index : index + 1].clone()
        start = cold_start(part_BPP, lower_B[index : index + 1], upper_B[index : index + 1])
        (alone,) = invert(part_BPP, start, plan, [1e-6])
        off = 1e-12 if precision == "float64" else 1e-7
        assert float((stacked[index].x_PP - alone.x_PP).norm() / alone.x_PP.norm()) <= off
        assert stacked[index].products == alone.products
        assert stacked[index].error <= 1e-6


def test_published_steps_are_two_hidden_dampings() -> None:
    operator = _damped(1e2)
    solution = solve(operator, torch.ones(64, 1), Schulz(start="published", iterations=15))
    hidden = 0.001 + 1 / (5e-5 * 2**15)
    explained_PK = torch.linalg.solve(
        operator.matmul(_identity(operator)) + hidden * _identity(operator), torch.ones(64, 1, dtype=torch.float64)
    )
    # (1 - exp(-t)) / t against 1 / (1 + t): the same thing told in one word, within a third.
    ratio = float((solution.x_PK / explained_PK).median())
    assert 0.9 < ratio < 1.4
    assert solution.status is SolveStatus.MAX_ITERATIONS
    assert solution.stats.plan is not None
    assert solution.stats.plan["hidden_damping"] == pytest.approx(hidden)
    assert "0.001" in solution.stats.notes[0]
    assert "0.61" in solution.stats.notes[0]


def test_the_published_code_works_on_the_whole_matrix_however_few_the_rows() -> None:
    operator = _few_rows(1e2)
    dense = Damped(DenseOperator(operator.operator.matmul(_identity(operator))), operator.damping)
    published = Schulz(start="published")
    through_rows, whole = (solve(one, torch.ones(64, 1), published).x_PK for one in (operator, dense))
    torch.testing.assert_close(through_rows, whole, rtol=1e-4, atol=0)


def test_the_published_start_runs_away_from_a_large_matrix() -> None:
    operator = Damped(DenseOperator(1e5 * torch.eye(4, dtype=torch.float64)), 1.0)
    assert solve(operator, torch.ones(4, 1), Schulz(start="published")).status is SolveStatus.DIVERGED


@pytest.mark.parametrize("bad", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"iterations": 0}, {"memory_bytes": 0}])
def test_refuses_impossible_parameters(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Schulz(**bad)  # type: ignore[arg-type]


def test_refuses_a_damping_of_zero() -> None:
    with pytest.raises(ValueError, match="damping"):
        Schulz().check(Damped(DenseOperator(torch.eye(3, dtype=torch.float64)), 0.0))
