"""Every benchmark runs, with sizes at which its figures mean nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, run
from benchmarks.result import Row, machine, save
from benchmarks.subject import QUICK, Subject
from tests.support.tiny import make_checkpoint, make_rows, write_rows


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    root = tmp_path_factory.mktemp("data")
    make_checkpoint(root)
    write_rows(root / "sentences.jsonl", make_rows(20))
    return Subject(root, "base", "adapter", "sentences.jsonl")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_gives_rows(name: str, subject: Subject) -> None:
    rows = run([name], subject, replace(QUICK, seconds=0.6))
    assert rows
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
    assert all(row.ours and row.beside and row.sizes for row in rows)


def test_rows_are_as_long_as_asked_and_the_same_each_time(subject: Subject) -> None:
    rows = list(subject.long_rows("some", 5, 12))
    assert all(len(row["text"].split()) >= 10 for row in rows), "two of the tokens are [CLS] and [SEP]"
    assert rows == list(subject.long_rows("some", 5, 12))
    assert rows != list(subject.long_rows("other", 5, 12))


def test_a_goal_has_a_side() -> None:
    row = Row("speed", 0.7, "x", "1 s", "0.7 s", "N = 1", goal=0.6)
    assert row.reached is True
    assert replace(row, value=0.5).reached is False
    assert replace(row, at_least=False).reached is False
    assert replace(row, goal=None).reached is None


def test_a_run_is_kept_with_the_machine_it_was_seen_on(tmp_path: Path) -> None:
    row = Row("speed", 0.7, "x", "1 s", "0.7 s", "N = 1", goal=0.6)
    document = json.loads(save([row], machine(), tmp_path / "bench").read_text())
    assert document["rows"][0]["reached"] is True
    assert {"date", "processor", "threads", "torch"} <= document["machine"].keys()
