"""Files of score vectors: what was written is read, in any part, or an error says that it is not."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stamina

from ascribe.errors import ResultDamaged, StorageFailed
from ascribe.result import StoredVectors
from ascribe.results import writing
from ascribe.results.ranking import KEPT_ROWS, RankedOrder, pack_top, rank, unpack_top
from ascribe.results.reading import FileScores
from ascribe.store.remote import Remote
from tests.support.flaky import trouble
from tests.support.handmade import scores_of
from tests.support.spilled import columns_of

ROWS, GROUP = 40, 16
VECTORS = {f"validation:{index}": scores_of(ROWS, index) for index in range(3)}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_ROWS", GROUP)


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """As many tries as ever, without the pauses."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def files(tmp_path: Path) -> Remote:
    return Remote(f"file://{tmp_path}/far")


def put(files: Remote, folder: Path) -> StoredVectors:
    stored = writing.write(columns_of(VECTORS), folder / "one.parquet")
    files.put(folder / "one.parquet", stored.name)
    return stored


def lists(parts: list[array[float]]) -> list[list[float]]:
    return [list(part) for part in parts]


@pytest.mark.parametrize("names", [("validation:1",), ("validation:2", "validation:0"), tuple(VECTORS)])
def test_any_part_of_any_vectors(files: Remote, tmp_path: Path, names: tuple[str, ...]) -> None:
    stored = put(files, tmp_path)
    assert stored.group_rows == GROUP
    scores = FileScores(files, stored, names)
    for start, stop in [(0, ROWS), (0, 1), (15, 17), (17, 18), (3, 40), (16, 32), (39, 40), (2, 5)]:
        expected = [VECTORS[name][start:stop] for name in names]
        assert lists(scores.part(start, stop - start)) == expected
        assert lists(FileScores(files, stored, names).part(start, stop - start)) == expected


def test_slabs_one_after_another_read_each_group_once(
    files: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, index: int, **options: object) -> pa.Table:
        groups.append(index)
        return read(file, index, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    scores = FileScores(files, put(files, tmp_path), tuple(VECTORS))
    slabs = [scores.part(start, 5)[0] for start in range(0, ROWS, 5)]
    assert [value for slab in slabs for value in slab] == VECTORS["validation:0"]
    assert groups == [0, 1, 2]


def test_others_can_read_the_file(files: Remote, tmp_path: Path) -> None:
    put(files, tmp_path)
    assert pq.read_table(tmp_path / "one.parquet").to_pydict() == VECTORS


@pytest.mark.parametrize(("vectors", "rows"), [(2, 1 << 16), (100, 41943), (5000, 1024)])
def test_a_row_group_is_bounded_however_many_vectors_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: int, rows: int
) -> None:
    monkeypatch.undo()
    columns = columns_of({f"validation:{index}": [0.5] for index in range(vectors)})
    assert writing.write(columns, tmp_path / "one.parquet").group_rows == rows


def test_no_damage_is_read_as_numbers(files: Remote, tmp_path: Path) -> None:
    """Every byte of the file once: it is told, or it does not matter."""
    stored = put(files, tmp_path)
    path = tmp_path / "far" / stored.name
    content = path.read_bytes()
    expected = list(VECTORS.values())
    generator = random.Random(0)  # noqa: S311
    told = 0
    for position in range(len(content)):
        harmed = bytearray(content)
        harmed[position] ^= 1 << generator.randrange(8)
        path.write_bytes(harmed)
        try:
            assert lists(FileScores(files, stored, tuple(VECTORS)).part(0, ROWS)) == expected
        except ResultDamaged:
            told += 1
    assert told > 0.9 * len(content)


@pytest.mark.parametrize("harm", ["cut", "empty", "zeros", "another"])
def test_a_file_that_is_another_is_refused(files: Remote, tmp_path: Path, harm: str) -> None:
    stored = put(files, tmp_path)
    path = tmp_path / "far" / stored.name
    content = path.read_bytes()
    # A page's header has its checksum in a number of variable length: some other scores make a file as long.
    for seed in range(10, 500):
        writing.write(columns_of({name: scores_of(ROWS, seed + len(name) * i) for i, name in enumerate(VECTORS)}), path)
        another = path.read_bytes()
        if len(another) == len(content):
            break
    assert len(another) == len(content)
    path.write_bytes({"cut": content[:-1], "empty": b"", "zeros": bytes(len(content)), "another": another}[harm])
    with pytest.raises(ResultDamaged, match="submit the job again"):
        FileScores(files, stored, ["validation:0"]).part(0, 1)


def test_a_file_that_is_not_there(files: Remote, tmp_path: Path) -> None:
    stored = put(files, tmp_path)
    files.delete(stored.name)
    with pytest.raises(StorageFailed, match="ASCRIBE_RESULTS_DIR"):
        FileScores(files, stored, ["validation:0"]).part(0, 1)


def test_a_store_that_reads_short_or_fails(tmp_path: Path) -> None:
    files = Remote(f"flaky://{tmp_path}/far")
    stored = put(files, tmp_path)
    passing: list[list[Exception | int]] = [[7], [OSError("reset"), 3]]
    for each in passing:
        with trouble(cat_file=each):
            scores = FileScores(files, stored, ["validation:0"])
            assert lists(scores.part(0, ROWS)) == [VECTORS["validation:0"]], "tried again"
    scores = FileScores(files, stored, ["validation:0"])
    scores.part(0, 1)
    with pytest.raises(StorageFailed) as raised, trouble(cat_file=[OSError("secret"), 3, OSError("secret")]):
        FileScores(files, stored, ["validation:0"]).part(0, ROWS)
    assert "secret" not in raised.value.detail


def test_a_store_that_fails_between_two_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the store comes through pyarrow as it is."""
    monkeypatch.setattr(writing, "MOST_ROWS", 1 << 16)
    rows = 300_000
    files = Remote(f"flaky://{tmp_path}/far")
    wide = {name: [0.25] * rows for name in ("a", "b")}
    stored = writing.write(columns_of(wide), tmp_path / "one.parquet")
    files.put(tmp_path / "one.parquet", stored.name)
    scores = FileScores(files, stored, ["a"])
    scores.part(rows - 1, 1)
    with pytest.raises(StorageFailed), trouble(cat_file=[OSError("gone")] * 3):
        scores.part(0, 1)


@pytest.mark.parametrize("order", ["proponents", "opponents", "absolute"])
@pytest.mark.parametrize("rows", [1, 30, KEPT_ROWS, 3 * KEPT_ROWS])
def test_the_top_is_the_start_of_the_ranking(order: RankedOrder, rows: int) -> None:
    scores = array("f", scores_of(rows))
    top = unpack_top(pack_top(scores), order)
    expected = rank(scores, order)[:KEPT_ROWS]
    assert list(top) == list(expected)
    assert list(top.values()) == [scores[index] for index in expected]
