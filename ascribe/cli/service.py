"""Commands about the service itself: methods, version."""

from __future__ import annotations

import typer

import ascribe
from ascribe.cli.app import client_of
from ascribe.cli.output import print_facts, print_json
from ascribe.client.errors import ClientError


def methods(context: typer.Context) -> None:
    """Curvatures, solvers, their options, and which go together."""
    with client_of(context) as client:
        print_json(client.methods())


def version(context: typer.Context) -> None:
    """Version of this client, and of the API where one answers."""
    facts: dict[str, object] = {"ascribe": ascribe.__version__}
    with client_of(context) as client:
        try:
            facts |= {f"api {name}": value for name, value in client.version().items()}
        except ClientError as error:
            facts["api"] = error
    print_facts(facts)
