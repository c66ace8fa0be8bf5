"""CSV, TSV, Parquet and gzip read like JSON lines; what is broken, lying or too much is an error that says so."""

from __future__ import annotations

import csv
import gzip
import json
import random
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.settings import Settings
from ascribe.sources.rows import Labels, Rows, read_rows
from ascribe.spec import Columns, DatasetSpec, FileSource

LABELS = Labels(3, ("animals", "coding", "emotion"))
COLUMNS = Columns(text_pair="second")
ROWS = [
    {"id": "007", "text": 'a "quoted", text', "second": "line one\nline two", "label": "coding"},
    {"id": "8", "text": "naïve 猫", "second": "tab\there", "label": "animals"},
]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    match path.name.removesuffix(".gz").rpartition(".")[2]:
        case "jsonl":
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            return
        case kind:
            with path.open("w", newline="", encoding="utf-8-sig") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="," if kind == "csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
            data = path.read_bytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _read(
    path: Path, columns: Columns = COLUMNS, format_: Any = None, limit: int | None = None, **settings: Any
) -> Rows:
    source = FileSource(kind="file", path=path.name, format=format_)
    dataset = DatasetSpec(source=source, columns=columns, limit=limit)
    return read_rows(Settings(data_root=path.parent, **settings), dataset, "/train", LABELS)


def _refused(path: Path, kind: type[InvalidInput] = InvalidInput, **options: Any) -> tuple[str, str, str]:
    with pytest.raises(kind) as raised:
        _read(path, **options)
    assert type(raised.value) is kind
    problem = raised.value.errors[0]
    return problem.code, problem.pointer, problem.message


NAMES = ["rows.jsonl", "rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl.gz", "rows.csv.gz", "rows.tsv.gz"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _write(path, ROWS)
    rows = _read(path)
    assert rows.ids == ("007", "8")
    assert rows.texts == (ROWS[0]["text"], ROWS[1]["text"])
    assert rows.text_pairs == (ROWS[0]["second"], ROWS[1]["second"])
    assert rows.labels == (1, 0)
    reference = tmp_path / "reference.jsonl"
    _write(reference, ROWS)
    assert rows.sha256 == _read(reference).sha256


@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_a_name_that_says_nothing_needs_a_format(tmp_path: Path, format_: str) -> None:
    named = tmp_path / f"rows.{format_}"
    _write(named, ROWS)
    path = named.rename(tmp_path / "rows.data")
    assert _refused(path)[:2] == ("unknown_format", "/train/source/format")
    assert _read(path, format_=format_).ids == ("007", "8")


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_limit_and_columns_of_ones_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _write(path, [{"n": index, "sentence": f"text {index}", "y": index % 3} for index in range(1000)])
    columns = Columns(id="n", text="sentence", label="y")
    rows = _read(path, columns, limit=600)
    assert len(rows) == 600
    assert rows.ids[599] == "599"
    assert rows.labels[:4] == (0, 1, 2, 0)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
@pytest.mark.parametrize("role", ["text", "text_pair", "label"])
def test_a_missing_column_names_those_that_exist(tmp_path: Path, name: str, role: str) -> None:
    path = tmp_path / name
    _write(path, ROWS)
    code, pointer, message = _refused(path, columns=Columns.model_validate({"text_pair": "second", role: "s3cret"}))
    assert (code, pointer) == ("missing_column", f"/train/columns/{role}")
    assert all(column in message for column in ROWS[0])
    assert "s3cret" not in message


@pytest.mark.parametrize("values", [[["x"], ["y"]], [1.5, 2.5], [True, False], [b"x", b"y"], [None, None]])
@pytest.mark.parametrize("role", ["id", "text", "label"])
def test_a_parquet_column_of_another_type(tmp_path: Path, role: str, values: list[Any]) -> None:
    path = tmp_path / "rows.parquet"
    _write(path, [row | {role: value} for row, value in zip(ROWS, values, strict=True)])
    assert _refused(path)[:2] == ("column_type", f"/train/columns/{role}")


def test_parquet_dictionaries_and_large_strings(tmp_path: Path) -> None:
    table = pa.table({
        "text": pa.array(["a", "b", "a"], pa.large_string()),
        "label": pa.array(["coding", "coding", "animals"]).dictionary_encode(),
        "id": pa.array([3, 2, 1], pa.uint8()),
        "blob": [b"\xff", b"", b"x"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = _read(tmp_path / "rows.parquet", Columns())
    assert (rows.ids, rows.texts, rows.labels) == (("3", "2", "1"), ("a", "b", "a"), (1, 1, 0))


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("id,text,label\n1,x\n", "malformed_row", "/rows/0"),
        ("id,text,label\n1,x,coding\n2,x,coding,4\n", "malformed_row", "/rows/1"),
        ('id,text,label\n1,x,coding\n2,"x,coding\n', "malformed_row", "/rows/1"),
        ('id,text,label\n1,"x"y,coding\n', "malformed_row", "/rows/0"),
        ("id,text,text,label\n1,x,y,coding\n", "duplicate_column", ""),
        ("id,text,label\n1,\udcff,coding\n", "bad_encoding", "/rows/0"),
        ("id,text,label\n", "empty_dataset", ""),
        ("", "empty_dataset", ""),
        ("id,text,label\n1,x,coding\n2,x,1\n", "mixed_label_types", "/rows/1/label"),
        ("id,text,label\n1,x,\n", "missing_label", "/rows/0/label"),
        ("id,text,label\n1, ,coding\n", "missing_text", "/rows/0/text"),
        ("id,text,label\n,x,coding\n", "bad_id", "/rows/0/id"),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, code: str, place: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert _refused(path, columns=Columns())[:2] == (code, f"/train/source{place}")


# -- Parquet that is not what it says --------------------------------------------------------------------------


def _parquet(path: Path, count: int = 100) -> bytes:
    _write(path, [{"id": str(i), "text": f"text {i}", "second": "s", "label": "coding"} for i in range(count)])
    return path.read_bytes()


@pytest.mark.parametrize("keep", [0, 3, 4, 11, 100, 0.5, 0.9, -1])
def test_truncated_parquet(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "rows.parquet"
    whole = _parquet(path)
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    assert _refused(path)[:2] == ("malformed_file", "/train/source")


def test_parquet_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_text('{"text": "x", "label": 1}\n')
    assert _refused(path)[0] == "malformed_file"


def test_parquet_whose_footer_states_more_rows_than_there_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    whole = _parquet(path)
    # Thrift's compact form of "num_rows: 100", first in the file's own record, then in the row group's.
    assert whole.count(b"\x16\xc8\x01") >= 2
    path.write_bytes(whole.replace(b"\x16\xc8\x01", b"\x16\xca\x01", 1))
    code, _, message = _refused(path)
    assert code == "malformed_file"
    assert "number of rows" in message


def test_parquet_with_the_footer_of_another_file(tmp_path: Path) -> None:
    path, other = tmp_path / "rows.parquet", tmp_path / "other.parquet"
    whole, longer = _parquet(path), _parquet(other, 5000)
    footer = int.from_bytes(longer[-8:-4], "little") + 8
    path.write_bytes(whole[: len(whole) // 2] + longer[-footer:])
    assert _refused(path)[0] == "malformed_file"


def test_parquet_whose_footer_has_an_impossible_length(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    whole = _parquet(path)
    path.write_bytes(whole[:-8] + b"\xff\xff\xff\x7f" + whole[-4:])
    assert _refused(path)[0] == "malformed_file"


class _NoKms(pe.KmsClient):
    """Wraps keys in nothing: good enough for a file that nobody shall read."""

    def __init__(self, _: pe.KmsConnectionConfig) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, _: str) -> str:
        return key_bytes.hex()

    def unwrap_key(self, wrapped_key: str, _: str) -> bytes:  # type: ignore[override]  # the stub is wrong
        return bytes.fromhex(str(wrapped_key))


@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_encrypted_parquet(tmp_path: Path, plaintext_footer: bool) -> None:
    path = tmp_path / "rows.parquet"
    factory = pe.CryptoFactory(_NoKms)
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=plaintext_footer, double_wrapping=False
    )
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    table = pa.Table.from_pylist(ROWS)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    assert _refused(path)[:2] == ("encrypted_file", "/train/source")


def test_bytes_flipped_anywhere_give_rows_or_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    whole = _parquet(path)
    generator = random.Random(0)  # noqa: S311
    refused = 0
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            _read(path)
        except InvalidInput:
            refused += 1
    assert refused > 5


# -- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _write(path, [{"id": str(i), "text": "x" * 300, "second": "y", "label": "coding"} for i in range(50)])
    for limit, value in {"max_rows": 49, "max_line_bytes": 200, "max_file_bytes": 250}.items():
        code, pointer, message = _refused(path, LimitExceeded, **{limit: value})
        assert limit in message, message
        assert str(value) in message
        assert code in ("limit_exceeded", "line_too_long")
        assert pointer in ("/train/limit", "/train/source", "/train/source/path", "/train/source/rows/0")


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.csv.gz", "rows.parquet"])
def test_a_file_that_expands_too_far(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _write(path, [{"id": str(i), "text": "x" * 3000, "second": "y", "label": "coding"} for i in range(1000)])
    _, pointer, message = _refused(path, LimitExceeded, max_decompression_ratio=50)
    assert "max_decompression_ratio" in message
    assert pointer == "/train/source"
    assert len(_read(path, max_decompression_ratio=10_000)) == 1000


def test_a_bomb_of_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(64):
            file.write(b"\n" * (1 << 20))
    assert "max_decompression_ratio" in _refused(path, LimitExceeded)[2]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.csv.gz"])
def test_a_line_of_100_mb_fails_fast(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    open_ = gzip.open if path.suffix == ".gz" else open
    with open_(path, "wb") as file:
        file.write(b'"text","label"\n"' if "csv" in name else b'{"label": 1, "text": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    start = time.perf_counter()
    code, _, message = _refused(path, LimitExceeded, columns=Columns())
    assert (code, "max_line_bytes" in message) == ("line_too_long", True)
    assert time.perf_counter() - start < 5  # a start of Python, not the reading of 100 MB


def test_a_parquet_text_of_100_mb(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    _write(path, [row | {"text": "x" * (100 << 20)} for row in ROWS])
    assert _refused(path, LimitExceeded)[:2] == ("line_too_long", "/train/source/rows/0")


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.csv.gz"])
@pytest.mark.parametrize("keep", [10, 0.5, -4])
def test_truncated_gzip(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    generator = random.Random(0)  # noqa: S311
    _write(path, [row | {"id": str(i), "text": generator.randbytes(50).hex()} for i in range(500) for row in ROWS[:1]])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    assert _refused(path)[:2] == ("malformed_file", "/train/source")
