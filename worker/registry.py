"""Spec variant to solver, by explicit match: a new solver is one arm here."""

from __future__ import annotations

from typing import Any

from ascribe.spec import (
    CholeskySolver,
    DataInfSolver,
    IdentitySolver,
    JobSpec,
    LissaSolver,
    SchulzSolver,
)
from worker.solvers.base import Solver
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.identity import Identity
from worker.solvers.lissa import Lissa
from worker.solvers.schulz import Schulz


def build_solver(spec: JobSpec) -> Solver[Any]:
    """The solver ``spec.solver`` names, with its options."""
    match spec.solver:
        case SchulzSolver() as schulz:
            iterations = {} if schulz.iterations is None else {"iterations": schulz.iterations}
            return Schulz(tolerance=schulz.tolerance, start=schulz.start, **iterations)
        case CholeskySolver():
            return Cholesky()
        case DataInfSolver():
            return DataInf()
        case LissaSolver() as lissa:
            return Lissa(
                step_size=None if lissa.step_size == "auto" else lissa.step_size,
                batch_size=None if lissa.batch_size == "auto" else lissa.batch_size,
                steps=None if lissa.steps == "auto" else lissa.steps,
                tolerance=lissa.tolerance,
                max_steps=lissa.max_steps,
                seed=spec.seed,
            )
        case IdentitySolver():
            return Identity()
        case _:
            raise AssertionError(spec.solver.kind)
