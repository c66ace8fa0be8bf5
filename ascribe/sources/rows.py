"""A dataset's rows: inline, from a file or from an upload; checked, and hashed in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

from ascribe.fingerprint import canonical_json
from ascribe.settings import Settings
from ascribe.sources.checkpoints import Checkpoint
from ascribe.sources.confined import read_confined
from ascribe.sources.limits import ReadLimits
from ascribe.sources.locate import locate
from ascribe.sources.reading import Roles, check_count
from ascribe.sources.row_checks import CheckedRow, ColumnNames, Labels, RowChecker
from ascribe.spec import Columns, DatasetSpec, InlineSource

__all__ = ["Labels", "Rows", "labels_of", "read_rows"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rows:
    """Checked rows in their order. ``sha256`` covers texts and labels, in order, but not the ids.

    A classifier's rows have ``labels``, a language model's ``completions`` to its prompts, the ``texts``.
    ``named``: the labels came as names.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    text_pairs: tuple[str, ...] | None
    labels: tuple[int, ...]
    sha256: str
    completions: tuple[str, ...] | None = None
    places: tuple[int, ...] | None = None
    named: bool = False

    def place(self, row: int) -> int:
        """Where the row stands in its source: rows before it may have been left out."""
        return row if self.places is None else self.places[row]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, rows: Iterable[CheckedRow]) -> Rows:
        """``rows`` as columns. Where they have no ids they are numbered from 0."""
        ids: list[str] = []
        texts: list[str] = []
        seconds: list[str] = []
        labels: list[int] = []
        named = False
        digest = hashlib.sha256()
        for index, row in enumerate(rows):
            ids.append(str(index) if row.id is None else row.id)
            texts.append(row.text)
            if row.label is not None:
                labels.append(row.label)
                named = row.named
            if row.text_pair is not None:
                seconds.append(row.text_pair)
            digest.update(canonical_json([row.text, row.text_pair, row.label]) + b"\n")
        second = tuple(seconds) or None
        pairs, completions = (second, None) if labels else (None, second)
        return cls(tuple(ids), tuple(texts), pairs, tuple(labels), digest.hexdigest(), completions, named=named)

    def without(self, places: Set[int]) -> Rows:
        """All rows but these. ``sha256`` stays that of the rows as they were read."""

        return self._picked([place for place in range(len(self)) if place not in places])

    def repeated(self, counts: Sequence[int]) -> Rows:
        """Every row so many times, one behind the other. ``sha256`` stays that of the rows as they were read."""
        return self._picked([place for place, count in enumerate(counts) for _ in range(count)])

    def _picked(self, places: Sequence[int]) -> Rows:
        def picked(column: Sequence[T]) -> tuple[T, ...]:
            return tuple(column[place] for place in places)

        return replace(
            self,
            ids=picked(self.ids),
            texts=picked(self.texts),
            text_pairs=self.text_pairs and picked(self.text_pairs),
            labels=self.labels and picked(self.labels),
            completions=self.completions and picked(self.completions),
            places=tuple(map(self.place, places)),
        )


def labels_of(checkpoint: Checkpoint) -> Labels | None:
    """What a label of its rows may be; None: a language model, whose rows have completions."""
    return None if checkpoint.task == "causal-lm" else Labels(checkpoint.num_labels, checkpoint.label_names)


def read_rows(settings: Settings, dataset: DatasetSpec, pointer: str, labels: Labels | None) -> Rows:
    """All rows of ``dataset``; ``pointer`` is where it stands in the spec (``/train``).

    A file is read in a child process of limited memory and time: it may be anybody's.

    Raises:
        InvalidInput: up to 20 problems at once, each with a pointer such as ``/train/source/rows/123/label``.
        LimitExceeded: what is over a limit, by the limit's name.
    """
    limits = ReadLimits.of(settings)
    if isinstance(dataset.source, InlineSource):
        return Rows.of(_inline_rows(dataset.source, dataset.limit, pointer, labels, limits))
    columns = _columns(dataset.columns, labels)
    file = locate(settings, dataset.source, f"{pointer}/source")
    return Rows.of(read_confined(file, Roles(columns, labels, dataset.limit, pointer), limits))


def _columns(names: Columns, labels: Labels | None) -> ColumnNames:
    if labels is None:
        return ColumnNames(names.id, names.prompt, names.completion, None)
    return ColumnNames(names.id, names.text, names.text_pair, names.label)


def _inline_rows(
    source: InlineSource, limit: int | None, pointer: str, labels: Labels | None, limits: ReadLimits
) -> Iterator[CheckedRow]:
    columns = _columns(Columns(text_pair="text_pair"), labels)
    checker = RowChecker(columns, labels, pointer, pair_required=False)
    for index, row in enumerate(source.rows[:limit]):
        check_count(index, limits, f"{pointer}/limit")
        checked = checker.check(row.model_dump(exclude_none=True))
        if checked is not None:
            yield checked
    checker.finish()
