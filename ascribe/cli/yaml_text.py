"""YAML as another way to write JSON: the same types, and the line on which each value stands.

PyYAML follows YAML 1.1, where ``1e-6`` is a string, ``no`` is false and ``2026-01-01`` a date. Here a plain scalar is
what it is in JSON, else a string. Imported only when a YAML file is read: PyYAML is an extra.
"""

from __future__ import annotations

import re
from typing import Any

import yaml


class _JsonLoader(yaml.SafeLoader):
    """Safe as SafeLoader is, with JSON's scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own form


for _tag, _pattern, _first in (
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-0123456789")),
    ("merge", r"^<<$", ["<"]),
):
    _JsonLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def parse(text: str) -> tuple[Any, dict[str, int]]:
    """The document's value, and the line of each value in it by JSON pointer, from 1. Raises ValueError."""
    try:
        loader = _JsonLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None, {}
        lines: dict[str, int] = {}
        _number(root, "", lines, set())
        return loader.construct_document(root), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"not YAML: {error.problem}{where}") from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise ValueError("not YAML text") from error


def _number(node: yaml.Node, pointer: str, lines: dict[str, int], met: set[int]) -> None:
    lines[pointer] = node.start_mark.line + 1
    if id(node) in met:  # an alias, maybe of a node around it
        return
    met.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _number(item, f"{pointer}/{index}", lines, met)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag.endswith(":merge"):
                continue
            name = f"{pointer}/{str(key.value).replace('~', '~0').replace('/', '~1')}"
            if name in lines:
                raise ValueError(f"{name} is there twice, in lines {lines[name]} and {value.start_mark.line + 1}")
            _number(value, name, lines, met)
