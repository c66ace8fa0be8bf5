"""Validation errors in our own words: where and what, never the value that was sent.

pydantic's messages may repeat the input (an unknown tag, a ValueError's text). So only types known to be silent keep
their message, and everything else is told to be invalid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic_core.core_schema import ErrorType

from ascribe.errors import Problem

MAX_PROBLEMS = 20
MAX_PART = 64

_KNOWN = frozenset(get_args(ErrorType))
_TAGGED = frozenset({"source", "curvature", "damping", "solver"})
"""Fields whose location goes on with the name of the chosen variant, which is no field of the body."""

_OUR_WORDS = {
    "missing": "is required",
    "extra_forbidden": "unknown field",
    "json_invalid": "the body is not JSON",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "must be an object with a field {discriminator}",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} items",
    "string_pattern_mismatch": "must match {pattern}",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_unicode": "must be a valid Unicode string",
}
_SILENT = frozenset({
    "int_type", "int_parsing", "int_parsing_size", "int_from_float", "float_type", "float_parsing", "bool_type",
    "bool_parsing", "finite_number", "string_type", "string_too_short", "string_too_long", "greater_than",
    "greater_than_equal", "less_than", "less_than_equal", "dict_type", "list_type", "tuple_type",
})  # fmt: skip
"""Their own message names the rule alone."""


def problems_of(errors: Sequence[Mapping[str, Any]], body: Any) -> list[Problem]:
    """One problem a place, at most 20, in the order found."""
    by_pointer: dict[str, Problem] = {}
    for error in errors:
        pointer = _pointer(error, body)
        problem = Problem(pointer, _code(error), _message(error))
        earlier = by_pointer.get(pointer)
        if earlier and problem.message not in earlier.message:
            # The branches of a union each complain; to the caller it is one field.
            problem = Problem(pointer, earlier.code, f"{earlier.message}, or {problem.message}")
        by_pointer[pointer] = earlier if earlier and problem.message in earlier.message else problem
    # Items that were refused do not count, and so a list of bad ones is said to be too short as well.
    beside = tuple(by_pointer)
    return [
        problem
        for pointer, problem in by_pointer.items()
        if problem.code != "too_short" or not any(other.startswith(f"{pointer}/") for other in beside)
    ][:MAX_PROBLEMS]


def _code(error: Mapping[str, Any]) -> str:
    return "unknown_field" if error["type"] == "extra_forbidden" else str(error["type"])


def _message(error: Mapping[str, Any]) -> str:
    kind = error["type"]
    if kind in _OUR_WORDS:
        return _OUR_WORDS[kind].format(**error.get("ctx", {}))
    if kind in _SILENT or kind not in _KNOWN:  # not known to pydantic: ours, from ascribe.spec
        return str(error["msg"]).replace("Input should", "must").removesuffix(", unable to parse string as a number")
    return "is not valid"


def _pointer(error: Mapping[str, Any], body: Any) -> str:
    given = error.get("ctx", {}).get("pointer")
    if given:
        return str(given)
    where, *location = error["loc"]
    if where != "body":
        return "/" + "/".join(map(_escape, [where, *location[:1]]))
    if error["type"] == "json_invalid":
        return ""
    return "".join(f"/{_escape(part)}" for part in _fields(location, body, missing=error["type"] == "missing"))


def _fields(location: Sequence[str | int], body: Any, *, missing: bool) -> list[str | int]:
    """The parts of ``location`` that are there in the body, or would be: names of union variants fall out."""
    fields: list[str | int] = []
    value = body
    parts = iter(enumerate(location, start=1))
    for position, part in parts:
        if (
            isinstance(value, dict)
            and isinstance(part, str)
            and (part in value or (missing and position == len(location)))
        ):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        fields.append(part)
        if part in _TAGGED:
            next(parts, None)
    return fields


def _escape(part: str | int) -> str:
    """As RFC 6901 asks. A field name is the caller's own: cut short, and made safe to print."""
    text = str(part)[:MAX_PART].encode("utf-8", "replace").decode()
    return text.replace("~", "~0").replace("/", "~1")
