"""The command that asks a finished job more: query."""

from __future__ import annotations

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
    name: Annotated[str | None, typer.Option(help="Name of the new job.")] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Score new validation rows by a job that succeeded: what it computed is used again. Prints the new job's id.

    Examples:

      ascribe query job_0197... --text "how do I undo a commit" --label coding --wait

      ascribe query job_0197... more.jsonl --wait
    """
    texts, row_labels = texts or [], row_labels or []
    if (file is None) == (not texts):
        raise typer.BadParameter("give a FILE of rows, or a --text with its --label")
    if len(texts) != len(row_labels):
        raise typer.BadParameter(f"{len(texts)} --text and {len(row_labels)} --label: each text needs its label")
    with client_of(context) as client:
        source = {"kind": "dataset", "id": client.upload(file)} if file else _inline(texts, row_labels)
        asked = client.query(job, {"source": source}, name=name)
        follow(client, asked, wait=wait, timeout=timeout, as_json=as_json)


def _inline(texts: list[str], labels: list[str]) -> dict[str, Any]:
    rows = [
        {"text": text, "label": int(label) if label.isdecimal() else label}
        for text, label in zip(texts, labels, strict=True)
    ]
    return {"kind": "inline", "rows": rows}
