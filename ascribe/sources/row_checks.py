"""What makes a row usable: id, text, second text and label by column, each wrong one named by its row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ascribe.errors import InvalidInput, Problem

MAX_PROBLEMS = 20
MAX_ID_CHARACTERS = 200
SHOWN_COLUMNS, SHOWN_CHARACTERS = 20, 64


@dataclass(frozen=True, slots=True)
class Labels:
    """What a label may be: an integer below ``count`` or one of ``names``."""

    count: int
    names: tuple[str, ...] | None

    def parse(self, value: Any) -> int | None:
        """The class index, or None where ``value`` is not a label of this model.

        Digits that are no name are the integer they spell: a CSV file has only text.
        """
        if self.is_name(value):
            assert self.names is not None
            return self.names.index(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value if 0 <= value < self.count else None
        return None

    def is_name(self, value: Any) -> bool:
        return isinstance(value, str) and self.names is not None and value in self.names

    def name(self, index: int) -> str:
        return self.names[index] if self.names else str(index)

    @property
    def expected(self) -> str:
        names = f" or one of {', '.join(self.names)}" if self.names else ""
        return f"an integer from 0 to {self.count - 1}{names}"


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The file's column for each role. A language model's rows have no label: two texts, prompt and completion."""

    id: str | None
    text: str
    text_pair: str | None
    label: str | None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The roles that have a column, as the caller knows them, and the column."""
        for field in ("id", "text", "text_pair", "label"):
            column = getattr(self, field)
            if column is not None:
                yield self.role(field), column

    def role(self, field: str) -> str:
        return {"text": "prompt", "text_pair": "completion"}.get(field, field) if self.label is None else field


class CheckedRow(NamedTuple):
    """``named``: its label came as a name."""

    id: str | None
    text: str
    text_pair: str | None
    label: int | None
    named: bool = False


def missing_column(pointer: str, role: str, existing: Iterable[str]) -> InvalidInput:
    """The column for ``role`` is not there; the error names those that are, cut short and fit to print."""
    columns = list(existing)
    names = ", ".join(_printable(name) for name in columns[:SHOWN_COLUMNS])
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    message = f"there is no column of this name; the columns are: {names or 'none'}{more}"
    return InvalidInput.at(f"{pointer}/columns/{role}", "missing_column", message)


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)[
        :SHOWN_CHARACTERS
    ]


class RowChecker:
    """Checks rows one after the other and collects their problems, so that one error names many rows.

    The first row decides for all whether there are ids, second texts, and names or numbers for labels.
    """

    def __init__(self, columns: ColumnNames, labels: Labels | None, pointer: str, *, pair_required: bool) -> None:
        self._columns, self._labels, self._pointer = columns, labels, pointer
        self._pair_required = pair_required
        self._rows = 0
        self._seen_ids: set[str] = set()
        self._has_pairs = False
        self._label_is_name: bool | None = None
        self._problems: list[Problem] = []
        self._problem_count = 0

    def check(self, raw: Any) -> CheckedRow | None:
        """The next row, or None where it or an earlier one is wrong. Raises InvalidInput for a missing column."""
        index = self._rows
        if not isinstance(raw, dict):
            self._problem(index, "", "not_an_object", "must be a JSON object")
        else:
            if index == 0:
                self._settle(raw)
            row = CheckedRow(
                self._id(index, raw),
                self._text(index, "text", raw.get(self._columns.text)),
                self._text_pair(index, raw),
                None if self._labels is None else self._label(index, raw, self._labels),
                bool(self._label_is_name),
            )
        self._rows += 1
        return None if self._problem_count else row

    def finish(self) -> None:
        """Raises InvalidInput: the problems of all rows, or no rows at all."""
        if self._rows == 0:
            raise InvalidInput.at(f"{self._pointer}/source", "empty_dataset", "the dataset has no rows")
        if self._problem_count:
            raise InvalidInput(f"{self._problem_count} problem(s) in the rows", errors=self._problems)

    def _settle(self, first: dict[str, Any]) -> None:
        optional = {"id"} if self._pair_required else {"id", "text_pair"}
        for role, column in self._columns:
            if role not in optional and column not in first:
                raise missing_column(self._pointer, role, first)
        self._has_pairs = self._columns.text_pair is not None and self._columns.text_pair in first

    def _id(self, index: int, raw: dict[str, Any]) -> str | None:
        value = raw.get(self._columns.id) if self._columns.id else None
        if value is None:
            if self._seen_ids:
                self._problem(index, "id", "missing_id", "earlier rows have an id, this one has none")
            return None
        identifier = str(value) if isinstance(value, str | int) else ""
        if not 0 < len(identifier) <= MAX_ID_CHARACTERS or _has_surrogate(identifier):
            message = f"must be a string of 1 to {MAX_ID_CHARACTERS} characters, or an integer"
            self._problem(index, "id", "bad_id", message)
        elif index and not self._seen_ids:
            self._problem(index, "id", "missing_id", "earlier rows have no id, this one has: give all rows one or none")
        elif identifier in self._seen_ids:
            self._problem(index, "id", "duplicate_id", "an earlier row has the same id")
        self._seen_ids.add(identifier)
        return identifier

    def _text_pair(self, index: int, raw: dict[str, Any]) -> str | None:
        column = self._columns.text_pair
        if column is None:
            return None
        if (column in raw) != self._has_pairs:
            message = "some rows have a second text, some have none: give it to all or to none"
            self._problem(index, "text_pair", "missing_text_pair", message)
            return None
        return self._text(index, "text_pair", raw[column]) if self._has_pairs else None

    def _text(self, index: int, field: str, value: Any) -> str:
        role = self._columns.role(field)
        if not isinstance(value, str) or not (value.strip() or role == "prompt"):
            must = "must be a text" if role == "prompt" else "must be a text that is not empty"
            self._problem(index, role, "missing_text", must)
            return ""
        if _has_surrogate(value):
            self._problem(index, role, "bad_text", "must be valid Unicode: it holds half of a surrogate pair")
            return ""
        return value

    def _label(self, index: int, raw: dict[str, Any], labels: Labels) -> int:
        value = raw.get(self._columns.label or "")
        label = labels.parse(value)
        if label is None:
            code = "missing_label" if value is None or value == "" else "label_out_of_range"
            self._problem(index, "label", code, f"must be {labels.expected}")
            return 0
        is_name = labels.is_name(value)
        if self._label_is_name is None:
            self._label_is_name = is_name
        elif self._label_is_name != is_name:
            # 1 and "1" may be two classes of one model: which is meant is not ours to guess.
            kinds = ("a name", "integers") if is_name else ("an integer", "names")
            self._problem(index, "label", "mixed_label_types", f"is {kinds[0]} where earlier labels are {kinds[1]}")
        return label

    def _problem(self, index: int, role: str, code: str, message: str) -> None:
        # The role, not the caller's name of the column: an error repeats nothing of the input.
        pointer = f"{self._pointer}/source/rows/{index}" + (f"/{role}" if role else "")
        self._problem_count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(pointer, code, message))


def _has_surrogate(value: str) -> bool:
    return not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value)
