"""Seconds and bytes of each solver on one system: operations counted, divided by rates.

Building the curvature is not counted: it is the same for all. The factors without a formula were fitted to
``python -m benchmarks.auto``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ascribe.planning.iterations import cg_iterations
from ascribe.planning.problem import Problem, System
from ascribe.planning.rates import Rates
from ascribe.planning.schulz_degrees import degrees_for, products_of, start_angle

CHOLESKY_SIZE = 16384
CG_ITERATIONS = 1000
LISSA_STEPS = 5000

# LAPACK's factor and triangular solves run at a share of the rate of a product.
_FACTOR = 3.0
_TRIANGULAR = 2.5
# Up to here Schulz iterates in float32.
_FLOAT32_CONDITION = 1e5
# The bound of cg_iterations asks for almost three times what the usual decaying spectrum takes.
_TYPICAL = 0.36
_MAX_SKETCH = 512
# What a call and a step cost however small the matrix is.
_CALL_SECONDS, _STEP_SECONDS = 3e-4, 1e-4
# Float32 rows read, written as float64 into fresh memory, and read again: bytes an entry.
_ROW_BYTES = 45
# Passes over [P, K] in a step beside the product, and over [P, R] in the sketch's factorisations for each column.
_VECTOR_PASSES = 30
_SKETCH_FACTOR = 40
# A batch of LiSSA is four times tr C / lambda_max, and its noise a quarter of the step size.
_BATCH, _NOISE, _KNOWN = 4, 0.25, 1.001


@dataclass(frozen=True)
class Cost:
    """``refusal`` says why the solver is out of the question, if it is."""

    seconds: float
    bytes: int
    iterations: int
    refusal: str | None = None


def cholesky(system: System, problem: Problem, rates: Rates) -> Cost:
    """A factor of the smaller side, two solves and the product between them."""
    side, columns = system.rank, system.columns
    if system.rows is not None and not problem.rows_cached:
        return Cost(0.0, 0, 0, "the Hessian is known by its products alone: there is nothing to factor")
    if side > CHOLESKY_SIZE:
        return Cost(0.0, 0, 0, f"would factor a matrix of {side} x {side}; its limit is {CHOLESKY_SIZE}")
    seconds = _CALL_SECONDS + _FACTOR * side**3 / 3 / rates.float64_flops
    solve = _TRIANGULAR * rates.product64(side, side, columns)
    if system.rows is not None:
        seconds += rates.product64(side, max(system.rows, system.size), side) + _read_rows(system, rates)
        if system.rows <= system.size:
            solve += 2 * rates.product64(system.rows, system.size, columns) + 2 * _read_rows(system, rates)
    seconds += 2 * solve + 2 * product(system, problem, rates, columns)
    if problem.self_influence:
        seconds += solve / 2 * system.train_columns / columns
    return Cost(seconds, 8 * (3 * side**2 + 4 * system.size * columns), 1)


def schulz(system: System, problem: Problem, rates: Rates) -> Cost:
    """Products of whole matrices, the first two for nothing, and one to measure the error."""
    degrees = degrees_for(start_angle(system.condition), problem.tolerance)
    single = system.condition <= _FLOAT32_CONDITION
    flops = 2 * system.size**3
    polish = 2 if single else 0  # products of one float64 step on top of what float32 reaches
    seconds = _CALL_SECONDS + len(degrees) * _STEP_SECONDS
    seconds += (products_of(degrees) - 2) * flops / (rates.float32_flops if single else rates.float64_flops)
    seconds += (1 + polish) * flops / rates.float64_flops + 4 * product(system, problem, rates, system.columns)
    if problem.self_influence:
        seconds += product(system, problem, rates, system.train_columns)
    return Cost(seconds, 8 * (5 * system.size**2 + 4 * system.size * system.columns), len(degrees))


def cg(system: System, problem: Problem, rates: Rates) -> Cost:
    """A sketch, then a product a step; the steps of the usual spectrum, refused by the bound for the worst."""
    if problem.self_influence:
        return _self_influence_refused()
    iterations = math.ceil(_TYPICAL * _cg_bound(system, problem))
    sketch = cg_sketch(system, problem)
    step = product(system, problem, rates, system.columns)
    step += _STEP_SECONDS + _VECTOR_PASSES * 8 * system.size * system.columns / rates.bytes_per_second
    seconds = iterations * step + 2 * product(system, problem, rates, system.columns)
    if sketch:
        seconds += product(system, problem, rates, sketch)
        seconds += _SKETCH_FACTOR * rates.product64(system.size, sketch, sketch)
        seconds += 2 * iterations * rates.product64(system.size, sketch, system.columns)
    needed = 8 * system.size * (10 * system.columns + 4 * sketch)
    if iterations > CG_ITERATIONS:
        return Cost(seconds, needed, iterations, f"{iterations} iterations predicted; its limit is {CG_ITERATIONS}")
    return Cost(seconds, needed, iterations)


def cg_sketch(system: System, problem: Problem) -> int:
    """Columns of the preconditioner that CG keeps."""
    sketch = min(2 ** math.floor(math.log2(max(1.0, _cg_bound(system, problem) / 2))), _MAX_SKETCH, system.size)
    return sketch if sketch >= 8 else 0


def _cg_bound(system: System, problem: Problem) -> int:
    return cg_iterations(condition=system.condition, tail=system.tail, size=system.rank, tolerance=problem.tolerance)


def lissa(system: System, problem: Problem, rates: Rates) -> Cost:
    """Batches of rows, and two exact products in the time in which the error shrinks by e."""
    if problem.self_influence:
        return _self_influence_refused()
    rows = system.rows or system.size
    # The largest eigenvalue is known to a thousandth, and the plan ends with one anchor more than is needed.
    contraction = 1 / (_KNOWN * (1 + _NOISE) * system.largest + 1)
    steps = math.ceil((math.log(1 / problem.tolerance) + 1) / contraction) + 3
    batch = min(rows, math.ceil(_BATCH * system.tail / system.largest))
    anchors = math.ceil(2 * math.log(1 / problem.tolerance)) + 2
    share = batch / rows
    seconds = (steps * share + anchors) * product(system, problem, rates, system.columns)
    seconds += steps * _VECTOR_PASSES / 3 * 8 * system.size * system.columns / rates.bytes_per_second
    needed = 8 * system.size * (8 * system.columns + batch)
    if steps > LISSA_STEPS:
        return Cost(seconds, needed, steps, f"{steps} steps at this damping; its limit is {LISSA_STEPS}")
    return Cost(seconds, needed, steps)


def eigenbasis(system: System, problem: Problem, rates: Rates) -> Cost:
    """Into the basis and back, taken for dense products with its larger factor."""
    columns = system.columns + (system.train_columns if problem.self_influence else 0)
    return Cost(2 * product(system, problem, rates, columns), 16 * system.size * system.columns, 1)


def product(system: System, problem: Problem, rates: Rates, columns: int) -> float:
    """Seconds of ``A x`` for ``columns`` vectors."""
    if system.rows is None:
        return rates.product64(system.size, system.size, columns)
    if not problem.rows_cached:
        return problem.train_rows * columns / rates.model_rows_per_second
    return 2 * rates.product64(system.rows, system.size, columns) + _read_rows(system, rates)


def _read_rows(system: System, rates: Rates) -> float:
    assert system.rows is not None
    return _ROW_BYTES * system.rows * system.size / rates.bytes_per_second


def _self_influence_refused() -> Cost:
    return Cost(0.0, 0, 0, "self-influence would take an iterative solve for every train row")
