"""The reader's child: it dies, hangs or eats memory alone, and whoever asked gets an error of ours in time."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ascribe.errors import Busy, InternalError, InvalidInput, LimitExceeded
from ascribe.settings import Settings
from ascribe.sources import confined
from ascribe.sources.confined import describe_confined, read_confined
from ascribe.sources.limits import ReadLimits
from ascribe.sources.reading import DataFile, Description, Format, Roles
from ascribe.sources.row_checks import CheckedRow, ColumnNames, Labels

ROLES = Roles(ColumnNames(None, "text", None, "label"), Labels(2, None), None, "/train")


def _limits(**settings: float) -> ReadLimits:
    return ReadLimits.of(Settings.model_validate(settings))


def _read(path: Path, format_: Format = "jsonl", **settings: float) -> list[CheckedRow]:
    return list(read_confined(DataFile(path, format_), ROLES, _limits(**settings)))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A file whose opening never ends."""
    os.mkfifo(tmp_path / "rows.jsonl")
    return tmp_path / "rows.jsonl"


def _children() -> list[int]:
    """Readers that run for this process."""
    pids = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return [pid for pid in pids if b"ARROW_DEFAULT_MEMORY_POOL" in Path(f"/proc/{pid}/environ").read_bytes()]


@contextmanager
def _once_it_runs(act: Callable[[int], None]) -> Iterator[None]:
    """Calls ``act`` with the process id of the reader that is started meanwhile."""

    def watch() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for child in _children():
                act(child)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_rows_arrive_in_order_whatever_their_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": i % 2}) + "\n" for i in range(1000)))
    assert _read(path) == [CheckedRow(None, f"t{i}", None, i % 2) for i in range(1000)]
    assert describe_confined(DataFile(path, "jsonl"), _limits()) == Description(1000, ("text", "label"))


def test_a_reading_that_takes_too_long_is_ended(pipe: Path) -> None:
    start = time.monotonic()
    with pytest.raises(LimitExceeded, match="reader_seconds"):
        _read(pipe, reader_seconds=1)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("with_signal", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_reader_that_crashes_is_the_files_fault(pipe: Path, with_signal: signal.Signals) -> None:
    with _once_it_runs(lambda child: os.kill(child, with_signal)), pytest.raises(InvalidInput) as raised:
        _read(pipe)
    problem = raised.value.errors[0]
    assert (problem.code, problem.pointer) == ("unreadable_file", "/train/source")


def test_a_text_that_needs_more_memory_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * (32 << 20)]))
    pq.write_table(pa.table({"text": texts, "label": [1] * 200}), path)
    assert path.stat().st_size < 4 << 20
    with pytest.raises(LimitExceeded, match="reader_memory_bytes") as raised:
        _read(path, "parquet")
    assert raised.value.errors[0].pointer == "/train/source"


def test_a_fault_of_ours_is_not_called_the_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "label": 1}\n')
    with pytest.raises(InternalError):
        _read(path, "no_such_format")  # type: ignore[arg-type]  # that is the fault


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as raised:
        _read(tmp_path / "gone.jsonl")
    assert raised.value.errors[0].code == "unreadable_file"


def test_stopping_in_the_middle_ends_the_child(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * 1000, "label": 1}) + "\n" for _ in range(20_000)))
    rows = read_confined(DataFile(path, "jsonl"), ROLES, _limits())
    next(rows)
    before = time.monotonic()
    rows.close()  # type: ignore[attr-defined]  # it is a generator
    assert time.monotonic() - before < 5
    assert _children() == []


def test_the_child_sees_no_secret_of_ours(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCRIBE_API_KEY", "s3cret-s3cret-s3cret")
    seen: list[bytes] = []

    def look(child: int) -> None:
        seen.append(Path(f"/proc/{child}/environ").read_bytes())
        os.kill(child, signal.SIGKILL)

    with _once_it_runs(look), pytest.raises(InvalidInput):
        _read(pipe)
    assert seen
    assert b"s3cret" not in seen[0]


def test_only_so_many_files_are_read_at_once(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "SLOT_SECONDS", 0.2)
    hanging = [threading.Thread(target=_hang, args=(pipe,)) for _ in range(confined.READERS)]
    for thread in hanging:
        thread.start()
    with pytest.raises(Busy):
        _read_until_busy(pipe)
    for thread in hanging:
        thread.join()
    with pytest.raises(LimitExceeded):
        _read(pipe, reader_seconds=0.1)


def _hang(path: Path) -> None:
    with pytest.raises(LimitExceeded):
        _read(path, reader_seconds=3)


def _read_until_busy(path: Path) -> None:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with suppress(LimitExceeded):  # one of the others has not started yet
            _read(path, reader_seconds=0.1)
