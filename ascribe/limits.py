"""The limits that need more than one field, or the settings, to check: the same words from the service and a worker."""

from __future__ import annotations

from collections.abc import Sequence

from ascribe.errors import DoesNotFit, LimitExceeded
from ascribe.planning.from_spec import gauss_newton_bytes
from ascribe.planning.memory import Estimate
from ascribe.result import vector_names
from ascribe.settings import Settings
from ascribe.sources.checkpoints import Checkpoint
from ascribe.spec import GaussNewton, JobSpec


def exceeded(pointer: str, message: str) -> LimitExceeded:
    return LimitExceeded.at(pointer, "limit_exceeded", message)


def check_model(spec: JobSpec, checkpoint: Checkpoint, settings: Settings) -> None:
    """Raises LimitExceeded: rows that may be longer, or gradients larger, than this server takes."""
    if spec.model.max_length > settings.max_row_tokens:
        raise exceeded("/model/max_length", f"must be at most {settings.max_row_tokens}, the limit max_row_tokens")
    if checkpoint.parameters > settings.max_parameters:
        raise exceeded(
            "/parameters",
            f"a row's gradient would have {checkpoint.parameters} entries; the limit max_parameters is "
            f"{settings.max_parameters}: select fewer matrices, use an adapter of lower rank, "
            "or project the gradients (parameters.projection)",
        )


def check_cells(
    spec: JobSpec, train_rows: int, validation_rows: int, settings: Settings, tokens: Sequence[int] = ()
) -> None:
    """Raises LimitExceeded: more scores than one job may store. ``tokens``: those of each validation row."""
    vectors = len(vector_names(spec.output, validation_rows, spec.damping_count, tokens))
    if vectors * train_rows > settings.max_cells:
        raise exceeded(
            "/output/per_validation_row" if spec.output.per_validation_row else "/train/limit",
            f"{vectors} vectors of {train_rows} scores are over {settings.max_cells} scores a job, the limit "
            "max_cells: leave out the scores per validation row, limit the rows, or ask for fewer values of damping",
        )


def check_solutions(
    spec: JobSpec, checkpoint: Checkpoint, validation_rows: int, settings: Settings, tokens: Sequence[int] = ()
) -> None:
    """Raises LimitExceeded: more right-hand sides than a worker should hold, each with its solution, in float64."""
    columns = validation_rows + sum(tokens) + 1 if spec.output.per_validation_row else 1
    needed_bytes = (1 + spec.damping_count) * 8 * checkpoint.parameters * columns
    if needed_bytes > settings.max_solution_bytes:
        raise exceeded(
            "/output/per_validation_row",
            f"{columns} right-hand sides and their solutions would take {needed_bytes} bytes; the limit "
            f"max_solution_bytes is {settings.max_solution_bytes}: leave out the scores per validation row or token, "
            "limit the validation rows, or ask for fewer values of damping",
        )


def check_gauss_newton(spec: JobSpec, checkpoint: Checkpoint, train_rows: int, settings: Settings) -> None:
    """Raises LimitExceeded: rows of a Hessian that 'auto' would not keep, and that a projection leaves no choice of."""
    if not isinstance(spec.curvature, GaussNewton) or spec.curvature.form != "auto" or not spec.parameters.projection:
        return
    needed = gauss_newton_bytes(checkpoint.blocks, train_rows=train_rows, classes=checkpoint.num_labels)
    if needed > settings.max_gauss_newton_bytes:
        raise exceeded(
            "/parameters/projection",
            f"the rows of the Gauss-Newton Hessian would take {needed} bytes of the cache; the limit "
            f"max_gauss_newton_bytes is {settings.max_gauss_newton_bytes}: project to a smaller long_side, leave the "
            "projection out (form 'products' keeps no rows), or ask for form 'rows', which is not limited",
        )


_TOO_LARGE = {
    "model": ("/model/base", "take a smaller model, or dtype bfloat16"),
    "one row": ("/model/max_length", "lower max_length, or take dtype bfloat16"),
    "shard of gradients": ("/parameters", "select fewer matrices, or lower ASCRIBE_SHARD_ROWS"),
    "curvature": ("/curvature/kind", "take 'empirical_fisher', which holds no matrix"),
    "right-hand sides": ("/output/per_validation_row", "leave out the scores per validation row"),
}


def check_fits(estimate: Estimate, there_bytes: int) -> None:
    """Raises DoesNotFit: the job needs more memory than there is, with batches of one row too."""
    if estimate.least <= there_bytes:
        return
    largest = max(_TOO_LARGE, key=lambda part: estimate.parts[part])
    pointer, advice = _TOO_LARGE[largest]
    raise DoesNotFit.at(
        pointer,
        "does_not_fit",
        f"the job needs {_size(estimate.least)} of memory, row by row, and a worker has {_size(there_bytes)} (limit "
        f"max_memory_bytes); most of it, {_size(estimate.parts[largest])}, is for: {largest}. {advice.capitalize()}, "
        "or give the worker more memory",
    )


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
