"""Reading rows: every way they can be wrong has a code and a pointer, and no value is repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.settings import Settings
from ascribe.sources.rows import Labels, Rows, read_rows
from ascribe.spec import Columns, DatasetSpec, FileSource, InlineRow, InlineSource

LABELS = Labels(3, ("animals", "coding", "emotion"))
SECRET = "s3cret-value"


def _file(root: Path, lines: list[Any], **options: Any) -> DatasetSpec:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (root / "rows.jsonl").write_text(text, encoding="utf-8")
    return DatasetSpec(source=FileSource(kind="file", path="rows.jsonl"), **options)


def _read(root: Path, dataset: DatasetSpec, **options: Any) -> Rows:
    return read_rows(Settings(data_root=root, **({"max_rows": 100} | options)), dataset, "/train", LABELS)


@pytest.mark.parametrize("labels", [("coding", "emotion"), (1, 2), ("1", "2"), (1, "2")])
def test_names_and_integers_are_labels(tmp_path: Path, labels: tuple[Any, Any]) -> None:
    rows = _read(tmp_path, _file(tmp_path, [{"text": "a", "label": labels[0]}, {"text": "b", "label": labels[1]}]))
    assert rows.labels == (1, 2)
    assert rows.ids == ("0", "1"), "no row has an id: rows are numbered"


@pytest.mark.parametrize("labels", [("coding", 2), (2, "coding"), ("coding", "2")])
def test_labels_of_two_kinds_are_refused(tmp_path: Path, labels: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, _file(tmp_path, [{"text": "a", "label": label} for label in labels]))
    problem = raised.value.errors[0]
    assert (problem.code, problem.pointer) == ("mixed_label_types", "/train/source/rows/1/label")


def test_digits_that_are_a_name_are_the_name(tmp_path: Path) -> None:
    stars = Labels(3, ("1", "2", "3"))
    assert [stars.parse(value) for value in ("1", 1, "0", "9", "٣")] == [0, 1, 0, None, None]


def test_callers_ids_are_kept_and_do_not_change_the_hash(tmp_path: Path) -> None:
    numbered = _read(tmp_path, _file(tmp_path, [{"text": "a", "label": 0}]))
    named = _read(tmp_path, _file(tmp_path, [{"id": 7, "text": "a", "label": 0}]))
    assert named.ids == ("7",)
    assert named.sha256 == numbered.sha256
    assert _read(tmp_path, _file(tmp_path, [{"text": "a", "label": 1}])).sha256 != named.sha256


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    rows = _read(tmp_path, _file(tmp_path, [{"text": str(i), "label": 0} for i in range(5)] + ["{"], limit=3))
    assert rows.texts == ("0", "1", "2")


def test_pairs(tmp_path: Path) -> None:
    columns = Columns(text_pair="second")
    good = {"text": "a", "second": "b", "label": 0}
    assert _read(tmp_path, _file(tmp_path, [good], columns=columns)).text_pairs == ("b",)
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, _file(tmp_path, [good, {"text": "a", "label": 0}], columns=columns))
    assert raised.value.errors[0].code == "missing_text_pair"


@pytest.mark.parametrize(
    ("row", "code", "pointer"),
    [
        ({"text": "x", "label": SECRET}, "label_out_of_range", "/label"),
        ({"text": "x", "label": 3}, "label_out_of_range", "/label"),
        ({"text": "x", "label": -1}, "label_out_of_range", "/label"),
        ({"text": "x", "label": True}, "label_out_of_range", "/label"),
        ({"text": "x", "label": 1.0}, "label_out_of_range", "/label"),
        ({"text": "x"}, "missing_label", "/label"),
        ({"text": "x", "label": None}, "missing_label", "/label"),
        ({"label": 1}, "missing_text", "/text"),
        ({"text": "  ", "label": 1}, "missing_text", "/text"),
        ({"text": ["x"], "label": 1}, "missing_text", "/text"),
        ({"text": "\ud800", "label": 1}, "bad_text", "/text"),
        ({"id": "\ud800", "text": "x", "label": 1}, "bad_id", "/id"),
        ({"id": [SECRET], "text": "x", "label": 1}, "bad_id", "/id"),
        ([SECRET], "not_an_object", ""),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: Any, code: str, pointer: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, _file(tmp_path, [{"text": "fine", "label": 0}, row]))
    problem = raised.value.errors[0]
    assert (problem.code, problem.pointer) == (code, f"/train/source/rows/1{pointer}")
    assert SECRET not in str(raised.value) + problem.message


def test_a_pointer_names_the_role_not_the_callers_column(tmp_path: Path) -> None:
    columns = Columns(id=None, text=SECRET, label="y")
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, _file(tmp_path, [{SECRET: 3, "y": 0}], columns=columns))
    assert SECRET not in str(raised.value)
    assert raised.value.errors[0].pointer == "/train/source/rows/0/text"


def test_many_wrong_rows_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="50 problem") as raised:
        _read(tmp_path, _file(tmp_path, [{"text": "x", "label": 9}] * 50))
    assert len(raised.value.errors) == 20


@pytest.mark.parametrize(
    ("ids", "code"), [(["a", "a"], "duplicate_id"), (["a", None], "missing_id"), ([1, "1"], "duplicate_id")]
)
def test_ids_are_unique_and_complete(tmp_path: Path, ids: list[Any], code: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, _file(tmp_path, [{"id": identifier, "text": "x", "label": 0} for identifier in ids]))
    assert raised.value.errors[0].code == code


def test_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, _file(tmp_path, ["", ""]))
    assert raised.value.errors[0].code == "empty_dataset"


@pytest.mark.parametrize("line", ["{", '{"text": "x", "label": 0', "nul\0", "[" * 100_000])
def test_broken_json_names_the_row(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path, _file(tmp_path, [{"text": "x", "label": 0}, line]))
    assert (raised.value.errors[0].code, raised.value.errors[0].pointer) == ("malformed_json", "/train/source/rows/1")


def test_limits(tmp_path: Path) -> None:
    dataset = _file(tmp_path, [{"text": "x" * 200, "label": 0}] * 3)
    with pytest.raises(LimitExceeded, match="2 rows"):
        _read(tmp_path, dataset, max_rows=2)
    with pytest.raises(LimitExceeded, match="100 bytes"):
        _read(tmp_path, dataset, max_line_bytes=100)


def test_inline_rows_read_like_a_file(tmp_path: Path) -> None:
    rows = (InlineRow(id="q", text="x", label="coding"),)
    inline = _read(tmp_path, DatasetSpec(source=InlineSource(kind="inline", rows=rows)))
    assert (inline.ids, inline.labels) == (("q",), (1,))
    assert inline.sha256 == _read(tmp_path, _file(tmp_path, [{"text": "x", "label": 1}])).sha256
