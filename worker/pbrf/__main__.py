"""``python -m worker.pbrf``: how well a job's scores predict what optimising with a changed weight does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track
from torch import Generator

from ascribe.cli.exits import OTHER, WRONG_INPUT
from ascribe.cli.output import complain, note, number, print_json, print_table
from ascribe.cli.specs import SpecFile, read_spec
from ascribe.errors import AscribeError, InvalidInput
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from worker.pbrf.agreement import Agreement, mean_and_minimum
from worker.pbrf.compare import Choose, Comparison, compare
from worker.pipeline import Bench

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COLUMNS = ("method", "Spearman", "lowest", "Pearson", "lowest", "all pairs", "status", "residual")


@app.command()
def check(
    spec: SpecFile,
    rows: Annotated[
        str | None, typer.Option(metavar="0,5,17", help="Train rows to check, counted from 0; else --count drawn.")
    ] = None,
    count: Annotated[int, typer.Option(min=3, help="So many train rows, drawn with --seed.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    others: Annotated[
        str,
        typer.Option(
            "--compare",
            metavar="METHODS",
            help="Other methods to set beside the spec's, with commas between them: curvature+solver, or a solver.",
        ),
    ] = "",
    damping: Annotated[
        float | None,
        typer.Option(
            help="An absolute lambda for the check and every method. Left out: the spec's damping, for the check "
            "resolved on the Gauss-Newton Hessian of all selected parameters."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Check a job's scores against the proximal Bregman response function (PBRF; Bae et al. 2022).

    For each chosen train row its weight is raised and lowered a little, the proximal Bregman objective is optimised
    both times in float64, and the change of every validation row's loss is compared with the scores of the spec's
    method. Models and rows are read below $ASCRIBE_DATA_ROOT, no server is needed. It takes about ten passes over
    the train set for each row: limit the train rows (train.limit in the spec) where the model is not small.

    Example: python -m worker.pbrf spec.json --count 20 --compare gfim+cholesky,datainf,identity
    """
    try:
        comparison = compare(
            JobSpec.model_validate(read_spec(spec).document),
            Bench(WorkerSettings()),
            _choice(rows, count, seed),
            [name.strip() for name in others.split(",") if name.strip()],
            damping=damping,
            watched=lambda chosen: track(list(chosen), "Optimising", console=Console(stderr=True), transient=True),
        )
    except ValidationError as error:
        places = [f"  /{'/'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        complain("\n".join(["Not a job spec", *places]))
        raise typer.Exit(WRONG_INPUT) from None
    except AscribeError as error:
        complain("\n".join([error.detail, *(f"  {each.pointer}: {each.message}" for each in error.errors)]))
        raise typer.Exit(WRONG_INPUT if isinstance(error, InvalidInput) else OTHER) from None
    except ValueError as error:
        complain(str(error))
        raise typer.Exit(WRONG_INPUT) from None
    if as_json:
        print_json(as_document(comparison))
    else:
        _print(comparison)
    _warn(comparison)


def _choice(rows: str | None, count: int, seed: int) -> Choose:
    if rows is None:
        return lambda total: sorted(torch.randperm(total, generator=Generator().manual_seed(seed))[:count].tolist())
    try:
        chosen = [int(row) for row in rows.split(",")]
    except ValueError:
        raise ValueError("--rows takes whole numbers with commas between them, such as 0,5,17") from None
    return lambda _: chosen


def as_document(comparison: Comparison) -> dict[str, Any]:
    """Everything the table shows and the numbers behind it."""
    result = comparison.result
    return {
        "damping": result.damping,
        "seconds": result.seconds,
        "rows": [
            {
                "row": response.row,
                "id": identifier,
                "epsilon": response.epsilon,
                "nonlinearity": response.nonlinearity,
                "relative_gradient": response.relative_gradient,
                "iterations": response.iterations,
                "converged": response.converged,
                "trusted": response.trusted,
                "differences": response.difference_Q.tolist(),
            }
            for response, identifier in zip(result.responses, comparison.row_ids, strict=True)
        ],
        "methods": {
            name: {"status": diagnostics.status.value, "worst_relative_residual": diagnostics.worst_relative_residual}
            | (_correlations(comparison.agreements[name]) if comparison.agreements else {})
            for name, diagnostics in comparison.diagnostics.items()
        },
    }


def _correlations(agreement: Agreement) -> dict[str, Any]:
    return {
        "pearson": _known(agreement.pearson),
        "spearman": _known(agreement.spearman),
        "pearson_by_validation_row": [_known(value) for value in agreement.pearson_Q.tolist()],
        "spearman_by_validation_row": [_known(value) for value in agreement.spearman_Q.tolist()],
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _print(comparison: Comparison) -> None:
    result = comparison.result
    nonlinearity = max(response.nonlinearity for response in result.responses)
    gradient = max(response.relative_gradient for response in result.responses)
    title = (
        f"Agreement with the PBRF: {len(result.responses)} train rows, {comparison.validation_rows} validation rows, "
        f"lambda {result.damping:.3g}, nonlinearity at most {nonlinearity:.1g}, relative gradient at most "
        f"{gradient:.1g}, {result.seconds:.0f} s"
    )
    print_table(COLUMNS, [_line(comparison, name) for name in comparison.diagnostics], title=title)


def _line(comparison: Comparison, name: str) -> Sequence[str]:
    cells = ["-"] * 5
    if comparison.agreements:
        agreement = comparison.agreements[name]
        values = (
            *mean_and_minimum(agreement.spearman_Q),
            *mean_and_minimum(agreement.pearson_Q),
            agreement.spearman,
        )
        cells = [number(_known(value)) for value in values]
    diagnostics = comparison.diagnostics[name]
    return (name, *cells, diagnostics.status.value, f"{diagnostics.worst_relative_residual:.1e}")


def _warn(comparison: Comparison) -> None:
    doubtful = comparison.result.doubtful
    if doubtful:
        why = "; ".join(
            f"row {response.row}: " + ("not linear" if response.converged else "the optimisation did not converge")
            for response in doubtful
        )
        note(f"{len(doubtful)} of {len(comparison.result.responses)} rows are left out of the correlations ({why})")
    if comparison.agreements is None:
        complain("Too few rows can be trusted: raise the damping, or check other rows")
        raise typer.Exit(OTHER)
    note(
        "Correlations are over the train rows, of each validation row: their mean and the lowest; 'all pairs' is one "
        "Spearman over everything."
    )


if __name__ == "__main__":
    app(prog_name="python -m worker.pbrf")
