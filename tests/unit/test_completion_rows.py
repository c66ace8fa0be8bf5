"""Rows of a language model, from the request and from files: prompt and completion, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ascribe.errors import InvalidInput
from ascribe.settings import Settings
from ascribe.sources.rows import Rows, read_rows
from ascribe.spec import Columns, DatasetSpec, FileSource, InlineSource, JobSpec

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "What is love?", "completion": " A word."},
    {"id": "b", "prompt": "", "completion": "Once upon a time"},
]


def _spec(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "model": {"task": "causal-lm", "base": "base", "adapter": "adapter"},
        "train": {"source": {"kind": "inline", "rows": rows}},
        "validation": {"source": {"kind": "file", "path": "q.jsonl"}},
        "curvature": {"kind": "none"},
        "solver": {"kind": "identity"},
    } | changes


def _read(root: Path, source: FileSource | InlineSource, **columns: str) -> Rows:
    return read_rows(Settings(data_root=root), DatasetSpec(source=source, columns=Columns(**columns)), "/train", None)


def test_the_same_rows_are_read_from_the_request_and_from_every_format(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "rows.csv").write_text("id,question,completion\na,What is love?, A word.\nb,,Once upon a time\n")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    inline = JobSpec.model_validate(_spec(ROWS)).train.source
    assert isinstance(inline, InlineSource)
    expected = _read(tmp_path, inline)
    assert expected.ids == ("a", "b")
    assert expected.texts == ("What is love?", "")
    assert expected.completions == (" A word.", "Once upon a time")
    assert (expected.labels, expected.text_pairs) == ((), None)
    assert _read(tmp_path, FileSource(kind="file", path="rows.jsonl")) == expected
    assert _read(tmp_path, FileSource(kind="file", path="rows.parquet")) == expected
    assert _read(tmp_path, FileSource(kind="file", path="rows.csv"), prompt="question") == expected


def test_left_out_rows_keep_their_places_and_the_hash_stays_that_of_the_source(tmp_path: Path) -> None:
    inline = JobSpec.model_validate(_spec(ROWS)).train.source
    assert isinstance(inline, InlineSource)
    rows = _read(tmp_path, inline)
    left = rows.without({0})
    assert (left.ids, left.completions, left.place(0)) == (("b",), ("Once upon a time",), 1)
    assert left.sha256 == rows.sha256


@pytest.mark.parametrize(
    ("row", "code", "pointer"),
    [
        ({"prompt": "p", "completion": " "}, "missing_text", "/train/source/rows/0/completion"),
        ({"prompt": 3, "completion": "c"}, "missing_text", "/train/source/rows/0/prompt"),
        ({"prompt": "p"}, "missing_column", "/train/columns/completion"),
        ({"completion": "c", "text": "p"}, "missing_column", "/train/columns/prompt"),
        ({"prompt": "p", "completion": "\ud800"}, "bad_text", "/train/source/rows/0/completion"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_in_the_roles_of_its_task(
    tmp_path: Path, row: dict[str, Any], code: str, pointer: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, FileSource(kind="file", path="rows.jsonl"))
    assert [(problem.code, problem.pointer) for problem in raised.value.errors] == [(code, pointer)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": {"base": "base", "adapter": "adapter"}}, "row_of_another_task"),
        ({"train": {"source": {"kind": "inline", "rows": [{"text": "t", "label": 0}]}}}, "row_of_another_task"),
        ({"curvature": {"kind": "gauss_newton", "form": "rows"}, "solver": {"kind": "cg"}}, "rows_of_a_vocabulary"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_with_the_spec(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ValidationError) as raised:
        JobSpec.model_validate(_spec(ROWS) | changes)
    assert [error["type"] for error in raised.value.errors()] == [code]
