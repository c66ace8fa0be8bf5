"""``ascribe cache``: what workers keep between jobs, on this machine's disk or in the store that machines share.

Talks to the folder or the store, not to the API.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ascribe.cli.arguments import AsJson
from ascribe.cli.describe import moment
from ascribe.cli.exits import OTHER
from ascribe.cli.output import complain, note, print_json, print_table
from ascribe.client.discovery import find_cache_dir

if TYPE_CHECKING:
    from ascribe.store import Entry

cache = typer.Typer(no_args_is_help=True, help="What workers keep between jobs.")

Folder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="ASCRIBE_CACHE_DIR",
        help="The cache directory. Left out: that of the running `ascribe up`, else of the state folder.",
    ),
]
InRemote = Annotated[
    bool, typer.Option("--remote", help="In place of the folder, the shared store that $ASCRIBE_STORE_URL names.")
]


@cache.command("ls")
def list_entries(folder: Folder = None, remote: InRemote = False, as_json: AsJson = False) -> None:
    """List what is cached, the last used first; entries that a running job reads are in use.

    In the shared store, which does not know who reads: the last written first.

    Example: ascribe cache ls
    """
    entries = _holding(folder, remote).entries()[::-1]
    if as_json:
        print_json([_document(entry) for entry in entries])
        return
    print_table(("key", "kind", "size", "last used", "in use"), map(_row, entries))
    note(f"{len(entries)} entries, {_size(sum(entry.bytes for entry in entries))}")


@cache.command("rm")
def remove_entries(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys, or how they begin.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that no running job reads.")] = False,
    older_than: Annotated[
        int | None,
        typer.Option(
            min=0, max=36500, metavar="DAYS", help="Not used for so many days; in the shared store, not written."
        ),
    ] = None,
    folder: Folder = None,
    remote: InRemote = False,
    as_json: AsJson = False,
) -> None:
    """Remove entries. A later job computes again what it misses; what a running job reads stays.

    Exit code 1 when something that was to go is in use.

    Examples:

      ascribe cache rm 3fa9c1

      ascribe cache rm --older-than 7
    """
    if bool(keys) + everything + (older_than is not None) != 1:
        raise typer.BadParameter("name keys, or give --all, or --older-than DAYS")
    holding = _holding(folder, remote)
    entries = holding.entries()
    if keys:
        entries = _chosen(entries, keys)
    elif older_than is not None:
        before = datetime.now(UTC) - timedelta(days=older_than)
        entries = [entry for entry in entries if entry.used_at < before]
    removed = [entry for entry in entries if holding.remove(entry)]
    if as_json:
        print_json([_document(entry) for entry in removed])
    else:
        print_table(("key", "kind", "size", "last used", "in use"), map(_row, removed))
    note(f"removed {len(removed)} entries, {_size(sum(entry.bytes for entry in removed))}")
    if len(removed) < len(entries):
        complain(f"{len(entries) - len(removed)} entries are in use and stay")
        raise typer.Exit(OTHER)


@dataclass(frozen=True, slots=True)
class _Holding:
    """Where entries are. ``remove``: False when somebody uses it."""

    entries: Callable[[], Sequence[Entry]]
    remove: Callable[[Entry], bool]


def _holding(folder: Path | None, remote: bool) -> _Holding:
    if os.name == "nt":
        complain("workers run on Linux and macOS: look at their cache from there")
        raise typer.Exit(OTHER)
    if remote:
        return _shared()
    from ascribe.store import Store  # only here: the other commands run where there is no fcntl

    folder = folder or find_cache_dir()
    note(f"cache directory: {folder}")
    store = Store(folder, max_bytes=None)
    return _Holding(store.entries, lambda entry: store.remove(entry.kind, entry.key))


def _shared() -> _Holding:
    from pydantic import ValidationError

    from ascribe.settings import Settings
    from ascribe.store.remote import open_remote
    from ascribe.store.shared import remove_shared, shared_entries

    try:
        store = open_remote(Settings())
    except ValidationError as error:
        raise typer.BadParameter("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())) from None
    if store is None:
        raise typer.BadParameter("set ASCRIBE_STORE_URL: it says where the shared store is")

    def remove(entry: Entry) -> bool:
        remove_shared(store, entry)
        return True

    return _Holding(lambda: shared_entries(store), remove)


def _chosen(entries: Sequence[Entry], beginnings: Sequence[str]) -> list[Entry]:
    """The entries whose keys begin so; one key can have entries of several kinds. Raises typer.BadParameter."""
    keys: set[str] = set()
    for beginning in beginnings:
        found = {entry.key for entry in entries if entry.key.startswith(beginning)}
        if len(found) != 1:
            raise typer.BadParameter(f"{len(found)} keys begin with {beginning!r}; see: ascribe cache ls")
        keys |= found
    return [entry for entry in entries if entry.key in keys]


def _row(entry: Entry) -> Sequence[object]:
    return (entry.key, entry.kind, _size(entry.bytes), moment(entry.used_at), "yes" if entry.pinned else "no")


def _document(entry: Entry) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "key": entry.key,
        "bytes": entry.bytes,
        "used_at": entry.used_at.isoformat(),
        "in_use": entry.pinned,
    }


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
