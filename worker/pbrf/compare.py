"""A job's scores, and other methods' on the same rows, beside the proximal Bregman responses of its model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ascribe.errors import InvalidInput
from ascribe.result import Diagnostics
from ascribe.sources.checkpoints import BlockShape
from ascribe.sources.rows import Rows
from ascribe.spec import PAIRS, JobSpec
from worker.curvature.block import CurvatureBlock
from worker.damping import damping_unit
from worker.data import Batch, make_batches
from worker.inputs import load_inputs
from worker.local import run_locally
from worker.models import LoadedModel
from worker.operators import LinearOperator
from worker.pbrf.agreement import Agreement, agreement
from worker.pbrf.check import Pbrf, PbrfResult, RowResponse
from worker.pbrf.curvature import gauss_newton_rows, gradient_rows, smaller_form
from worker.pipeline import Bench

MIN_ROWS = 3
"""Fewer points have no correlation worth the name."""

Choose = Callable[[int], Sequence[int]]
"""From the number of train rows to the places of those to check."""
Watched = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``agreements`` are over the trusted rows alone; None where fewer than three can be trusted."""

    result: PbrfResult
    row_ids: tuple[str, ...]
    validation_rows: int
    diagnostics: dict[str, Diagnostics]
    agreements: dict[str, Agreement] | None


def method_specs(spec: JobSpec, names: Sequence[str], damping: float | None) -> dict[str, JobSpec]:
    """The spec itself, and for each name the same job by another method, all with scores by validation row.

    A name is ``curvature+solver``, or a solver alone: on the spec's curvature where the two go together, else on the
    only curvature it goes with. ``damping``, absolute, takes the place of the spec's, but for plain products.

    Raises:
        ValueError: a name that is none.
        ValidationError: a pair that the spec refuses.
    """
    pairs = [(spec.curvature.kind, spec.solver.kind), *(_pair(spec, name) for name in names)]
    return {f"{curvature}+{solver}": _variant(spec, curvature, solver, damping) for curvature, solver in pairs}


def compare(
    spec: JobSpec,
    bench: Bench,
    choose: Choose,
    names: Sequence[str] = (),
    *,
    damping: float | None = None,
    watched: Watched = iter,
) -> Comparison:
    """Run every method, then the check on the rows that ``choose`` picks, and correlate.

    Without ``damping`` the check takes the spec's: ``relative`` and ``relative_to_largest`` then mean all selected
    parameters and their Gauss-Newton Hessian at once. ``watched`` may show progress over the rows.

    Raises:
        ValueError: fewer than three rows, a row that is not there, no damping, a method that is none.
        AscribeError: what the spec, the data or the numbers of a method make impossible.
    """
    if spec.model.task == "causal-lm":
        raise InvalidInput.at(
            "/model/task", "task_not_checked", "the check is for classifiers, not language models yet"
        )
    if spec.parameters.projection is not None:
        raise InvalidInput.at("/parameters/projection", "projection_not_checked", "the check is for whole gradients")
    specs = method_specs(spec, names, damping)
    if damping is None and spec.damping is None:
        raise ValueError("a spec without curvature has no damping to check with: give one")
    inputs = load_inputs(spec, bench.settings)
    rows = _checked(choose(len(inputs.train)), len(inputs.train))
    jobs = {name: run_locally(each, bench) for name, each in specs.items()}
    started = time.perf_counter()
    loaded = bench.models.get(inputs.key, inputs.checkpoint, spec.model)
    train, validation = (_batches(each, loaded, spec, bench) for each in (inputs.train, inputs.validation))
    model, blocks = loaded.model, inputs.checkpoint.blocks
    curvature = smaller_form(gauss_newton_rows(model, blocks, train))
    if damping is None:
        damping = _resolved(spec, curvature, model, blocks, train)
    prepared = Pbrf(model, blocks, train, validation, damping=damping, curvature=curvature)
    responses = tuple(prepared.respond(row) for row in watched(rows))
    result = PbrfResult(responses, damping, time.perf_counter() - started)
    return Comparison(
        result,
        tuple(inputs.train.ids[row] for row in rows),
        len(inputs.validation),
        {name: job.manifest.diagnostics for name, job in jobs.items()},
        _agreements(responses, {name: job.scores() for name, job in jobs.items()}),
    )


def _pair(spec: JobSpec, name: str) -> tuple[str, str]:
    curvature, plus, solver = name.partition("+")
    if plus:
        pairs = [(curvature, solver)]
    else:
        pairs = [(known, name) for known, solvers in PAIRS.items() if name in solvers]
        pairs = [pair for pair in pairs if pair[0] == spec.curvature.kind] or pairs
    if len(pairs) == 1 and pairs[0][1] in PAIRS.get(pairs[0][0], ()):
        return pairs[0]
    known = ", ".join(f"{curvature}+{solver}" for curvature, solvers in PAIRS.items() for solver in solvers)
    raise ValueError(f"{name} is not one method: name a curvature and a solver, one of {known}")


def _variant(spec: JobSpec, curvature: str, solver: str, damping: float | None) -> JobSpec:
    parts = spec.model_dump(mode="json")
    parts["output"] = {"per_validation_row": True, "self_influence": False}
    if (curvature, solver) != (spec.curvature.kind, spec.solver.kind):
        parts |= {"curvature": {"kind": curvature}, "solver": {"kind": solver}}
    if curvature == "none":
        parts["damping"] = None
    elif damping is not None:
        parts["damping"] = {"absolute": damping}
    return JobSpec.model_validate(parts)


def _checked(rows: Sequence[int], count: int) -> Sequence[int]:
    if len(set(rows)) < MIN_ROWS:
        raise ValueError(f"a correlation needs at least {MIN_ROWS} different train rows")
    missing = [row for row in rows if not 0 <= row < count]
    if missing:
        raise ValueError(f"there is no train row {missing[0]}: rows are numbered from 0 to {count - 1}")
    return rows


def _batches(rows: Rows, loaded: LoadedModel, spec: JobSpec, bench: Bench) -> list[Batch]:
    settings = bench.settings
    return make_batches(
        rows, 0, len(rows), loaded.tokenizer,
        max_length=spec.model.max_length, token_budget=settings.token_budget, device=settings.device,
    )  # fmt: skip


def _resolved(
    spec: JobSpec, curvature: LinearOperator, model: nn.Module, blocks: Sequence[BlockShape], train: Sequence[Batch]
) -> float:
    assert spec.damping is not None
    mean_squared_entry = float(gradient_rows(model, blocks, train).double().square().mean())
    whole = CurvatureBlock("all parameters", curvature, 1, curvature.size, mean_squared_entry)
    unit = damping_unit(whole, spec.damping.form, spec.seed)
    return spec.damping.factors[0] * unit


def _agreements(responses: Sequence[RowResponse], scores: dict[str, Tensor]) -> dict[str, Agreement] | None:
    trusted = [response for response in responses if response.trusted]
    if len(trusted) < MIN_ROWS:
        return None
    differences_ZQ = torch.stack([response.difference_Q for response in trusted])
    rows = [response.row for response in trusted]
    return agreement(differences_ZQ, {name: score_QN[:, rows].T for name, score_QN in scores.items()})
