"""A dataset's rows: inline, from a file or from an upload; checked, and hashed in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ascribe.fingerprint import canonical_json
from ascribe.settings import Settings
from ascribe.sources.confined import read_confined
from ascribe.sources.limits import ReadLimits
from ascribe.sources.locate import locate
from ascribe.sources.reading import Roles, check_count
from ascribe.sources.row_checks import CheckedRow, ColumnNames, Labels, RowChecker
from ascribe.spec import DatasetSpec, InlineSource

__all__ = ["Labels", "Rows", "read_rows"]


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

    @classmethod
    def of(cls, rows: Iterable[CheckedRow]) -> Rows:
        """``rows`` as columns. Where they have no ids they are numbered from 0."""
        ids: list[str] = []
        texts: list[str] = []
        pairs: list[str] = []
        labels: list[int] = []
        digest = hashlib.sha256()
        for index, row in enumerate(rows):
            ids.append(str(index) if row.id is None else row.id)
            texts.append(row.text)
            labels.append(row.label)
            if row.text_pair is not None:
                pairs.append(row.text_pair)
            digest.update(canonical_json([row.text, row.text_pair, row.label]) + b"\n")
        return cls(tuple(ids), tuple(texts), tuple(pairs) or None, tuple(labels), digest.hexdigest())


def read_rows(settings: Settings, dataset: DatasetSpec, pointer: str, labels: Labels) -> Rows:
    """All rows of ``dataset``; ``pointer`` is where it stands in the spec (``/train``).

    A file is read in a child process of limited memory and time: it may be anybody's.

    Raises:
        InvalidInput: up to 20 problems at once, each with a pointer such as ``/train/source/rows/123/label``.
        LimitExceeded: what is over a limit, by the limit's name.
    """
    limits = ReadLimits.of(settings)
    if isinstance(dataset.source, InlineSource):
        return Rows.of(_inline_rows(dataset.source, dataset.limit, pointer, labels, limits))
    names = dataset.columns
    columns = ColumnNames(names.id, names.text, names.text_pair, names.label)
    file = locate(settings, dataset.source, f"{pointer}/source")
    return Rows.of(read_confined(file, Roles(columns, labels, dataset.limit, pointer), limits))


def _inline_rows(
    source: InlineSource, limit: int | None, pointer: str, labels: Labels, limits: ReadLimits
) -> Iterator[CheckedRow]:
    columns = ColumnNames("id", "text", "text_pair", "label")
    checker = RowChecker(columns, labels, pointer, pair_required=False)
    for index, row in enumerate(source.rows[:limit]):
        check_count(index, limits, f"{pointer}/limit")
        checked = checker.check(row.model_dump(exclude_none=True))
        if checked is not None:
            yield checked
    checker.finish()
