"""``solver: auto``: the cheapest of the solvers that reach the residual asked for, and the reasons in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ascribe.errors import LimitExceeded
from ascribe.planning import costs
from ascribe.planning.problem import Problem, System
from ascribe.planning.rates import CPU, Rates

Estimate = Callable[[System, Problem, Rates], costs.Cost]

_ESTIMATES: Mapping[str, Estimate] = {
    "cholesky": costs.cholesky,
    "schulz": costs.schulz,
    "cg": costs.cg,
    "lissa": costs.lissa,
    "eigenbasis": costs.eigenbasis,
}
_EXCLUDED = {
    "datainf": "a closed form in place of the inverse: it reaches no residual",
    "astra": "how far it gets depends on how well EK-FAC fits: it reaches no residual for certain",
}
_EPSILON = 2.0**-52
_DENSE = ("cholesky", "schulz", "cg")
CONSIDERED: Mapping[str, tuple[str, ...]] = {
    "gfim": _DENSE,
    "gfim_unnormalized": _DENSE,
    "empirical_fisher": ("cholesky", "cg", "lissa", "datainf"),
    "gauss_newton": ("cholesky", "cg", "lissa", "astra"),
    "ekfac": ("eigenbasis",),
    "kfac": ("eigenbasis",),
    "none": ("identity",),
}
"""Which solvers are weighed for which curvature."""


@dataclass(frozen=True)
class Candidate:
    """``seconds`` of all blocks one after the other, ``bytes`` and ``iterations`` of the largest."""

    solver: str
    seconds: float
    bytes: int
    iterations: int
    feasible: bool
    reason: str | None
    """Why it is out of the question; ``None`` where it is not."""


@dataclass(frozen=True)
class Plan:
    """``candidates`` from the cheapest up, those that are out of the question last."""

    pick: str
    why: str
    seconds: float
    bytes: int
    candidates: tuple[Candidate, ...]


def plan(problem: Problem, rates: Rates = CPU) -> Plan:
    """Weigh all solvers that go with the curvature.

    With the same ``rates`` the same problem has the same plan: leave them at the default where results must repeat.

    Raises:
        LimitExceeded: if every one of them is out of the question.
    """
    weighed = [_weigh(solver, problem, rates) for solver in CONSIDERED[problem.curvature]]
    candidates = tuple(sorted(weighed, key=lambda candidate: (not candidate.feasible, candidate.seconds)))
    best = candidates[0]
    if not best.feasible:
        reasons = "; ".join(f"{candidate.solver}: {candidate.reason}" for candidate in candidates)
        raise LimitExceeded(f"no solver can do this: {reasons}")
    return Plan(best.solver, _why(problem, candidates), best.seconds, best.bytes, candidates)


def _weigh(solver: str, problem: Problem, rates: Rates) -> Candidate:
    if solver in _EXCLUDED:
        return Candidate(solver, 0.0, 0, 0, feasible=False, reason=_EXCLUDED[solver])
    if solver == "identity":
        return Candidate(solver, 0.0, 0, 0, feasible=True, reason=None)
    blocks = [_ESTIMATES[solver](system, problem, rates) for system in problem.systems()]
    needed = max(block.bytes for block in blocks)
    reason = _rounding(problem) or next((block.refusal for block in blocks if block.refusal), None)
    if reason is None and problem.memory_bytes is not None and needed > problem.memory_bytes:
        reason = f"takes {_size(needed)}, and there are {_size(problem.memory_bytes)}"
    return Candidate(
        solver,
        sum(block.seconds for block in blocks),
        needed,
        max(block.iterations for block in blocks),
        feasible=reason is None,
        reason=reason,
    )


def _rounding(problem: Problem) -> str | None:
    """Of a solve in float64: its residual is rounding in proportion to the condition."""
    condition = max(system.condition for system in problem.systems())
    if problem.curvature in ("kfac", "ekfac") or condition * _EPSILON <= problem.tolerance:
        return None
    return f"rounding may leave more than {problem.tolerance:g} at a condition of {condition:.2g}: raise the damping"


def _why(problem: Problem, candidates: tuple[Candidate, ...]) -> str:
    """One sentence."""
    best, *others = [candidate for candidate in candidates if candidate.feasible]
    if problem.curvature in ("none", "ekfac", "kfac"):
        return f"{best.solver}: {_duration(best.seconds)} predicted; the one solver of this curvature"
    parts = [f"{best.solver}: {_duration(best.seconds)} predicted"]
    parts += [f"{other.solver} {_duration(other.seconds)}" for other in others]
    verdict = {0: "the only one that reaches", 1: "both reach"}.get(len(others), "all reach")
    sentence = f"{', '.join(parts)}; {verdict} {problem.tolerance:g}"
    limited = [candidate for candidate in candidates if not candidate.feasible and candidate.solver not in _EXCLUDED]
    if out := [f"{candidate.solver} ({candidate.reason})" for candidate in limited]:
        sentence += f"; not {', not '.join(out)}"
    return f"{sentence}; {problem.assumption}" if problem.assumption else sentence


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
