"""The root of the command: where the API is, and how errors become a message and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ascribe.cli.exits import CANCELLED, FAILED, OTHER, TIMEOUT, WRONG_INPUT
from ascribe.cli.output import complain
from ascribe.client import Client
from ascribe.client.errors import ClientError, FileProblem, Invalid, JobCancelled, JobFailed, JobTimeout
from ascribe.errors import StorageFailed

EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (Invalid, WRONG_INPUT),
    (FileProblem, WRONG_INPUT),
    (JobFailed, FAILED),
    (JobCancelled, CANCELLED),
    (JobTimeout, TIMEOUT),
    (ClientError, OTHER),
    (StorageFailed, OTHER),
)

MakeClient = Callable[[], Client]


class ErrorsAsMessages(TyperGroup):
    """Prints what we raise on purpose to stderr, without a traceback; anything else is a fault and shows one."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except tuple(kind for kind, _ in EXIT_CODES) as error:
            complain(str(error))
            raise typer.Exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind))) from None


app = typer.Typer(
    cls=ErrorsAsMessages,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # a local may be the API key or someone's training text
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(
    epilog="Start with [bold]ascribe up --data FOLDER[/bold] in one terminal, then "
    "[bold]ascribe submit spec.yaml --wait[/bold] in another."
)
def root(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="The API. Left out: $ASCRIBE_URL, else the running `ascribe up`, else http://127.0.0.1:8000."
        ),
    ] = None,
) -> None:
    """Which training examples made this model behave like that, and by how much?

    The API key, where the service wants one, is read from $ASCRIBE_API_KEY.
    """
    if context.obj is None:  # tests bring a client of their own
        context.obj = partial(Client, url)


def client_of(context: typer.Context) -> Client:
    """The client this invocation talks through."""
    make: MakeClient = context.obj
    return make()
