"""``ascribe query`` against scripted replies: what it sends, and what it says of a wrong command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ascribe.cli import app
from tests.support.fake_api import JOB_ID, RESULT, FakeApi, job

CHILD = "job_" + "0" * 31 + "2"


def run(api: FakeApi, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["query", *arguments], obj=api.make_client, catch_exceptions=False)


def test_texts_and_labels_become_rows_and_the_new_id_is_printed() -> None:
    api = FakeApi(job(id=CHILD))
    result = run(api, JOB_ID, "--text", "undo", "--label", "coding", "--text", "why", "--label", "2", "--name", "more")
    assert (result.exit_code, result.stdout) == (0, CHILD + "\n")
    assert f"ascribe watch {CHILD}" in result.stderr
    rows = [{"text": "undo", "label": "coding"}, {"text": "why", "label": 2}]
    assert api.requests[0].url.path == f"/v1/jobs/{JOB_ID}/queries"
    assert api.bodies == [{"validation": {"source": {"kind": "inline", "rows": rows}}, "name": "more"}]


def test_a_file_is_uploaded_and_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text('{"text": "undo", "label": "coding"}\n')
    dataset = "ds_" + "a" * 64
    api = FakeApi({"id": dataset}, job(id=CHILD))
    assert run(api, JOB_ID, str(path)).exit_code == 0
    assert [request.url.path for request in api.requests] == ["/v1/datasets", f"/v1/jobs/{JOB_ID}/queries"]
    assert dataset.encode() in api.requests[1].content


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 3), ("cancelled", 4)])
def test_waiting_tells_how_it_ended(status: str, code: int) -> None:
    api = FakeApi(job(id=CHILD), job(status, id=CHILD))
    assert run(api, JOB_ID, "--text", "undo", "--label", "coding", "--wait").exit_code == code


def test_what_a_job_reused_is_shown() -> None:
    record = job("succeeded", id=CHILD)
    reused = {"solution": {"reused": 24, "of": 24, "keeps": "the inverse"}}
    record["result"] = RESULT | {"diagnostics": RESULT["diagnostics"] | {"reused": reused}}
    shown = CliRunner().invoke(app, ["show", CHILD], obj=FakeApi(record).make_client, catch_exceptions=False)
    assert "solution 24 of 24" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "FILE"),
        (["rows.jsonl", "--text", "undo", "--label", "coding"], "FILE"),
        (["--text", "undo"], "1 --text and 0 --label"),
    ],
)
def test_a_wrong_command_line_sends_nothing(arguments: list[str], words: str) -> None:
    api = FakeApi(job())
    result = run(api, JOB_ID, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert api.requests == []
