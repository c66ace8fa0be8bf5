"""Reads a dataset's rows: inline or JSON lines, ids, texts and labels checked, hashed in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascribe.errors import InvalidInput, LimitExceeded, Problem
from ascribe.fingerprint import canonical_json
from ascribe.sources.paths import resolve
from ascribe.spec import Columns, DatasetSpec, InlineSource

MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Labels:
    """What a label may be: an integer below ``count`` or one of ``names``."""

    count: int
    names: tuple[str, ...] | None

    def parse(self, value: Any) -> int | None:
        """The class index, or None where ``value`` is not a label of this model."""
        if isinstance(value, bool):
            return None
        if isinstance(value, int):
            return value if 0 <= value < self.count else None
        if isinstance(value, str) and self.names and value in self.names:
            return self.names.index(value)
        return None

    def name(self, index: int) -> str:
        return self.names[index] if self.names else str(index)

    @property
    def expected(self) -> str:
        names = f" or one of {', '.join(self.names)}" if self.names else ""
        return f"an integer from 0 to {self.count - 1}{names}"


@dataclass(frozen=True, slots=True)
class Rows:
    """Checked rows in their order. ``sha256`` covers texts and labels, in order, but not the ids."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    text_pairs: tuple[str, ...] | None
    labels: tuple[int, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.ids)


def read_rows(
    root: Path, dataset: DatasetSpec, pointer: str, labels: Labels, *, max_rows: int, max_line_bytes: int = 1 << 20
) -> Rows:
    """All rows of ``dataset``; ``pointer`` is where it stands in the spec (``/train``).

    Raises:
        InvalidInput: up to 20 problems at once, each with a pointer such as ``/train/source/rows/123/label``.
        LimitExceeded: more than ``max_rows`` rows.
    """
    source_pointer = f"{pointer}/source"
    if isinstance(dataset.source, InlineSource):
        columns = Columns(text_pair="text_pair")
        raw_rows: Iterator[Any] = (row.model_dump(exclude_none=True) for row in dataset.source.rows)
    else:
        columns = dataset.columns
        path = resolve(root, dataset.source.path, f"{source_pointer}/path")
        if not path.is_file():
            raise InvalidInput.at(f"{source_pointer}/path", "not_a_file", "must be a file of JSON lines")
        raw_rows = _json_lines(path, source_pointer, max_line_bytes)
    reader = _Reader(columns, labels, source_pointer)
    for index, raw in enumerate(raw_rows):
        if index == dataset.limit:
            break
        if index >= max_rows:
            raise LimitExceeded.at(
                f"{pointer}/limit", "limit_exceeded", f"the dataset has over {max_rows} rows, the limit"
            )
        reader.add(index, raw)
    return reader.finish(inline=isinstance(dataset.source, InlineSource))


class _Reader:
    """Collects rows and their problems, so that one error names many rows."""

    def __init__(self, columns: Columns, labels: Labels, pointer: str) -> None:
        self._columns, self._labels, self._pointer = columns, labels, pointer
        self._ids: list[str | None] = []
        self._texts: list[str] = []
        self._pairs: list[str] = []
        self._classes: list[int] = []
        self._problems: list[Problem] = []
        self._problem_count = 0

    def add(self, index: int, raw: Any) -> None:
        if not isinstance(raw, dict):
            self._problem(index, "", "not_an_object", "must be a JSON object")
            return
        columns = self._columns
        identifier = raw.get(columns.id) if columns.id else None
        if identifier is not None and not (isinstance(identifier, str | int) and 0 < len(str(identifier)) <= 200):
            self._problem(index, "id", "bad_id", "must be a string of 1 to 200 characters, or an integer")
        self._ids.append(None if identifier is None else str(identifier))
        self._texts.append(self._text(index, raw, "text", columns.text))
        if columns.text_pair and columns.text_pair in raw:
            self._pairs.append(self._text(index, raw, "text_pair", columns.text_pair))
        self._classes.append(self._label(index, raw))

    def finish(self, *, inline: bool) -> Rows:
        if not self._texts and not self._problem_count:
            raise InvalidInput.at(self._pointer, "empty_dataset", "the dataset has no rows")
        ids = self._checked_ids()
        self._check_pairs(inline=inline)
        if self._problem_count:
            raise InvalidInput(f"{self._problem_count} problem(s) in the rows", errors=self._problems)
        pairs = tuple(self._pairs) or None
        digest = hashlib.sha256()
        for index, (text, label) in enumerate(zip(self._texts, self._classes, strict=True)):
            digest.update(canonical_json([text, pairs[index] if pairs else None, label]) + b"\n")
        return Rows(ids, tuple(self._texts), pairs, tuple(self._classes), digest.hexdigest())

    def _checked_ids(self) -> tuple[str, ...]:
        present = [identifier for identifier in self._ids if identifier is not None]
        if not present:
            return tuple(str(index) for index in range(len(self._ids)))
        seen: set[str] = set()
        for index, identifier in enumerate(self._ids):
            if identifier is None:
                self._problem(index, "id", "missing_id", "other rows have an id, this one has none")
            elif identifier in seen:
                self._problem(index, "id", "duplicate_id", "an earlier row has the same id")
            else:
                seen.add(identifier)
        return tuple(present)

    def _check_pairs(self, *, inline: bool) -> None:
        if self._pairs and len(self._pairs) != len(self._texts):
            self._note(self._pointer, "missing_text_pair", "some rows have a second text, some have none")
        elif self._columns.text_pair and not self._pairs and not inline:
            self._note(self._pointer, "missing_text_pair", "no row has the column named text_pair")

    def _text(self, index: int, raw: dict[str, Any], role: str, column: str) -> str:
        value = raw.get(column)
        if not isinstance(value, str) or not value.strip():
            self._problem(index, role, "missing_text", "must be a text that is not empty")
            return ""
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            self._problem(index, role, "bad_text", "must be valid Unicode: it holds half of a surrogate pair")
            return ""
        return value

    def _label(self, index: int, raw: dict[str, Any]) -> int:
        value = raw.get(self._columns.label)
        if value is None:
            self._problem(index, "label", "missing_label", f"must be {self._labels.expected}")
            return 0
        label = self._labels.parse(value)
        if label is None:
            self._problem(index, "label", "label_out_of_range", f"must be {self._labels.expected}")
            return 0
        return label

    def _problem(self, index: int, role: str, code: str, message: str) -> None:
        # The role, not the caller's name of the column: an error repeats nothing of the input.
        pointer = f"{self._pointer}/rows/{index}" + (f"/{role}" if role else "")
        self._note(pointer, code, message)

    def _note(self, pointer: str, code: str, message: str) -> None:
        self._problem_count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(pointer, code, message))


def _json_lines(path: Path, pointer: str, max_line_bytes: int) -> Iterator[Any]:
    """Parsed lines; blank ones are passed over. The row number in an error counts rows, not lines."""
    index = 0
    with path.open("rb") as file:
        while line := file.readline(max_line_bytes + 1):
            if len(line) > max_line_bytes:
                raise LimitExceeded.at(
                    f"{pointer}/rows/{index}",
                    "line_too_long",
                    f"the line is longer than {max_line_bytes} bytes, the limit",
                )
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidInput.at(f"{pointer}/rows/{index}", "malformed_json", "the line is not JSON") from error
            yield value
            index += 1
