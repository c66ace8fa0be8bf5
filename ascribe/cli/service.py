"""Commands about the service itself: upload, methods, limits, version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ascribe
from ascribe.cli.app import client_of
from ascribe.cli.output import note, print_facts, print_json, say
from ascribe.client.errors import ClientError


def upload(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Rows as .jsonl, .csv, .tsv (or these with .gz) or .parquet.")
    ],
) -> None:
    """Send a dataset to the API. Prints its id to stdout; the same content has the same id.

    Example: DATA=$(ascribe upload train.jsonl)
    """
    with client_of(context) as client:
        dataset = client.upload(file)
    say(dataset)
    note(f"in a spec: source: {{kind: dataset, id: {dataset}}}")


def methods(context: typer.Context) -> None:
    """Curvatures, solvers, their options, and which go together."""
    with client_of(context) as client:
        print_json(client.methods())


def limits(context: typer.Context) -> None:
    """What the service accepts at most: rows, tokens, scores, seconds, queued jobs."""
    with client_of(context) as client:
        print_json(client.limits())


def version(context: typer.Context) -> None:
    """Version of this client, and of the API where one answers."""
    facts: dict[str, object] = {"ascribe": ascribe.__version__}
    with client_of(context) as client:
        try:
            facts |= {f"api {name}": value for name, value in client.version().items()}
        except ClientError as error:
            facts["api"] = error
    print_facts(facts)
