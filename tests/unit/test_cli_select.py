"""``ascribe select``: a file that is there once it is whole, and what is in it told beside."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support.fake_api import JOB_ID, FakeApi
from tests.unit.test_cli import run

SUMMARY = {
    "object": "selection",
    "job_id": JOB_ID,
    "rows": 10,
    "selected": 2,
    "duplicates": 1,
    "lowest_score": 0.25,
    "highest_score": 1.5,
    "labels": [{"label": "coding", "rows": 6, "selected": 2}, {"label": "trivia", "rows": 4, "selected": 0}],
}


def _replies() -> FakeApi:
    lines = httpx.Response(200, content=b'{"id": "a"}\n{"id": "b"}\n', headers={"Content-Type": "application/x-ndjson"})
    return FakeApi(SUMMARY, lines)


def test_rows_land_in_the_file_and_the_summary_is_told(tmp_path: Path) -> None:
    api = _replies()
    result = run(
        api, "select", JOB_ID, "--fraction", "0.2", "--quota", "balanced", "--out", str(tmp_path / "rows.jsonl")
    )
    assert result.exit_code == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == b'{"id": "a"}\n{"id": "b"}\n'
    assert "2 of 10 rows" in result.stderr
    assert "coding" in result.stdout
    asked = [dict(request.url.params) for request in api.requests]
    assert asked == [{"fraction": "0.2", "order": "proponents", "quota": "balanced", "duplicates": "drop"}] * 2


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    target = str(tmp_path / "rows.jsonl")
    assert run(_replies(), "select", JOB_ID, "--out", target).exit_code == 2
    assert run(_replies(), "select", JOB_ID, "--fraction", "1", "--count", "3", "--out", target).exit_code == 2
    assert (
        run(_replies(), "select", JOB_ID, "--count", "3", "--out", str(tmp_path / "no" / "rows.jsonl")).exit_code == 2
    )
    assert not Path(target).exists()


def test_a_name_that_promises_another_format_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.parquet", "rows.jsonl.gz", "."):
        api = _replies()
        result = run(api, "select", JOB_ID, "--count", "3", "--out", str(tmp_path / name))
        assert result.exit_code == 2
        assert ".jsonl" in result.stderr
        assert not api.requests
