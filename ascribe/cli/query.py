"""The command that asks a finished job more: query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ascribe.cli.app import client_of
from ascribe.cli.arguments import AsJson, JobId
from ascribe.cli.submit import Timeout, Wait, follow


def query(
    context: typer.Context,
    job: JobId,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Validation rows as .jsonl, .csv or .parquet.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="A validation row's text, in place of a file; repeatable.")
    ] = None,
    row_labels: Annotated[
        list[str] | None,
        typer.Option("--label", help="Its label, a name or a class number: one for each --text, in order."),
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="Of a language model, a validation row's prompt; repeatable.")
    ] = None,
    completions: Annotated[
        list[str] | None, typer.Option("--completion", help="What is said to it: one for each --prompt, in order.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new job.")] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Score new validation rows by a job that succeeded: what it computed is used again. Prints the new job's id.

    Examples:

      ascribe query job_0197... --text "how do I undo a commit" --label coding --wait

      ascribe query job_0197... --prompt "Q: what is love" --completion " A word." --wait

      ascribe query job_0197... more.jsonl --wait
    """
    labelled = _rows({"text": texts or [], "label": list(map(_label, row_labels or []))})
    said = _rows({"prompt": prompts or [], "completion": completions or []})
    if [file is not None, bool(labelled), bool(said)].count(True) != 1:
        raise typer.BadParameter("give a FILE of rows, a --text with its --label, or a --prompt with its --completion")
    inline = {"kind": "inline", "rows": labelled or said}
    with client_of(context) as client:
        source = {"kind": "dataset", "id": client.upload(file)} if file else inline
        asked = client.query(job, {"source": source}, name=name)
        follow(client, asked, wait=wait, timeout=timeout, as_json=as_json)


def _label(given: str) -> int | str:
    return int(given) if given.isdecimal() else given


def _rows(columns: Mapping[str, Sequence[int | str]]) -> list[dict[str, Any]]:
    (first, firsts), (second, seconds) = columns.items()
    if len(firsts) != len(seconds):
        raise typer.BadParameter(
            f"{len(firsts)} --{first} and {len(seconds)} --{second}: each {first} needs its {second}"
        )
    return [{first: one, second: other} for one, other in zip(firsts, seconds, strict=True)]
