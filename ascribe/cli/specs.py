"""Spec files: JSON or YAML, ``--set`` over it, and complaints that name the place in the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ascribe.cli.exits import WRONG_INPUT
from ascribe.cli.output import complain
from ascribe.client.errors import Invalid, describe
from ascribe.spec import JobSpec

SpecFile = Annotated[
    str, typer.Argument(metavar="SPEC", help="A YAML or JSON file with the job spec, or - for standard input.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change one field of the spec, such as solver.kind=cholesky; may be given again. "
        "VALUE is JSON, else taken as text.",
    ),
]


@dataclass(frozen=True)
class SpecText:
    """A spec as it was written. ``lines``: of each value by JSON pointer, where known. ``changed``: by ``--set``."""

    name: str
    document: dict[str, Any]
    lines: Mapping[str, int]
    changed: Mapping[str, str]

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Shows what the API refuses at its place in the file. Raises typer.Exit."""
        try:
            yield
        except Invalid as error:
            complain(describe(error.problem, where=self.place))
            raise typer.Exit(WRONG_INPUT) from None

    def place(self, pointer: str) -> str:
        """``spec.yaml:12 /solver/kind``, ``--set solver.kind``, or the pointer alone where it is of no field."""
        field = pointer.split("/")[1:2]
        if field and field[0] not in {*self.document, *JobSpec.model_fields}:
            return pointer
        known = list(_ancestors(pointer))
        if option := next((self.changed[each] for each in known if each in self.changed), None):
            return f"{option} {pointer}"
        line = next((self.lines[each] for each in known if each in self.lines and each), None)
        return f"{self.name}{f':{line}' if line else ''} {pointer or '/'}"


def read_spec(path: str, overrides: Sequence[str] | None = None) -> SpecText:
    """The object in the file, changed as asked. What is in it is the API's to judge. Raises typer.BadParameter."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path}: not UTF-8 text") from error
    try:
        document, lines = _parse(text, is_json=path.endswith(".json") or text.lstrip().startswith(("{", "[")))
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{path}: a job spec is an object of named fields")
    changed = dict(_override(document, each) for each in overrides or ())
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"{path}: holds a value that JSON has no form for, such as infinity") from error
    return SpecText("standard input" if path == "-" else path, document, lines, changed)


def _parse(text: str, *, is_json: bool) -> tuple[Any, Mapping[str, int]]:
    """Raises ValueError."""
    if is_json:
        try:
            document = json.loads(text, object_pairs_hook=_without_repeats)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
        except RecursionError as error:
            raise ValueError("not a job spec: nested too deeply") from error
        with suppress(ModuleNotFoundError, ValueError, RecursionError):  # nearly all JSON is YAML too: for the lines
            return document, _yaml(text)[1]
        return document, {}
    try:
        return _yaml(text)
    except ModuleNotFoundError as error:
        raise ValueError("reading YAML needs PyYAML: pip install 'ascribe[yaml]', or write the spec as JSON") from error
    except RecursionError as error:
        raise ValueError("not a job spec: nested too deeply") from error


def _yaml(text: str) -> tuple[Any, Mapping[str, int]]:
    from ascribe.cli import yaml_text

    return yaml_text.parse(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice} is there twice in one object")
    return found


def _override(document: dict[str, Any], option: str) -> tuple[str, str]:
    """Apply one ``--set``; the pointer it changed, and how to name it. Raises typer.BadParameter."""
    path, equals, text = option.partition("=")
    *parents, last = path.split(".")
    if not equals or not all([*parents, last]):
        raise typer.BadParameter(f"--set takes FIELD=VALUE, such as solver.kind=cholesky: {option}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    here: Any = document
    for part in parents:
        key = _key(here, part, path)
        if isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
        here = here[key]
    here[_key(here, last, path)] = value
    return f"/{path.replace('.', '/')}", f"--set {path}"


def _key(here: Any, part: str, path: str) -> int | str:
    """What ``here`` is to be indexed with. Raises typer.BadParameter."""
    if isinstance(here, dict):
        return part
    if isinstance(here, list) and part.isdecimal() and int(part) < len(here):
        return int(part)
    raise typer.BadParameter(f"--set {path}: there is no such place in the spec")


def _ancestors(pointer: str) -> Iterator[str]:
    while pointer:
        yield pointer
        pointer = pointer.rpartition("/")[0]
    yield ""
