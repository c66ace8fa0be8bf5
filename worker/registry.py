"""Spec variant to solver, by explicit match: a new solver is one arm here."""

from __future__ import annotations

from typing import Any

from ascribe.spec import (
    AstraSolver,
    AutoSolver,
    CgSolver,
    CholeskySolver,
    DataInfSolver,
    EigenbasisSolver,
    IdentitySolver,
    JobSpec,
    LissaSolver,
    SchulzSolver,
)
from worker.solvers.astra import Astra
from worker.solvers.base import Solver
from worker.solvers.cg import Cg
from worker.solvers.cholesky import Cholesky
from worker.solvers.datainf import DataInf
from worker.solvers.eigenbasis import Eigenbasis
from worker.solvers.identity import Identity
from worker.solvers.lissa import Lissa
from worker.solvers.schulz import Schulz


def build_solver(spec: JobSpec) -> Solver[Any]:
    """The solver ``spec.solver`` names, with its options."""
    match spec.solver:
        case SchulzSolver() as schulz:
            return Schulz(
                tolerance=schulz.tolerance,
                start=schulz.start,
                precision=schulz.precision,
                iterations=schulz.iterations or 30,
            )
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
        case CgSolver() as cg:
            rank = None if cg.preconditioner_rank == "auto" else cg.preconditioner_rank
            return Cg(tolerance=cg.tolerance, max_iterations=cg.max_iterations, rank=rank, seed=spec.seed)
        case EigenbasisSolver():
            return Eigenbasis()
        case AstraSolver() as astra:
            return Astra(
                step_size=None if astra.step_size == "auto" else astra.step_size,
                batch_size=None if astra.batch_size == "auto" else astra.batch_size,
                steps=None if astra.steps == "auto" else astra.steps,
                tolerance=astra.tolerance,
                max_steps=astra.max_steps,
                seed=spec.seed,
            )
        case IdentitySolver():
            return Identity()
        case AutoSolver():
            raise AssertionError("the plan names a solver before one is built")
