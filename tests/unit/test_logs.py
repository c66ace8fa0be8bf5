"""One line an event, from whatever library; ids in it, and nothing that a caller has sent."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

SAY = """
import logging, sys, threading, warnings
from ascribe import logs
logging.basicConfig()
noisy = logging.getLogger("noisy")
noisy.addHandler(logging.StreamHandler())
noisy.propagate = False
logs.configure({form!r}, {level!r})
import stamina, structlog
log = logging.getLogger("ours")
with logs.bound(job_id="job_1", attempt=2):
    log.info("attempt started", extra={{"seconds": 1.5}})
    noisy.warning("said %s", "once")
    structlog.get_logger("theirs").warning("retry", retry_num=1)
    try:
        open("/secret/path")
    except OSError:
        log.exception("storage failed")
log.debug("a detail")
log.info("afterwards")
"""


def said(form: str = "json", level: str = "info") -> str:
    script = SAY.format(form=form, level=level)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    return done.stderr


def lines(**how: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(**how).splitlines()]


@pytest.mark.parametrize("form", ["json", "auto"])
def test_each_event_is_one_line_of_json(form: str) -> None:
    found = lines(form=form)
    events = [line["event"] for line in found]
    assert events == ["attempt started", "said once", "retry", "storage failed", "afterwards"]
    assert [line["logger"] for line in found] == ["ours", "noisy", "theirs", "ours", "ours"]
    assert [line["level"] for line in found] == ["info", "warning", "warning", "error", "info"]
    assert all(line["timestamp"].endswith("Z") for line in found)


def test_ids_are_in_every_line_said_inside() -> None:
    *inside, afterwards = lines()
    assert {(line["job_id"], line["attempt"]) for line in inside} == {("job_1", 2)}
    assert "job_id" not in afterwards
    assert (inside[0]["seconds"], inside[2]["retry_num"]) == (1.5, 1)


def test_an_exception_tells_where_and_not_what() -> None:
    text = said()
    assert "secret" not in text
    assert "Traceback" not in text
    line = next(line for line in map(json.loads, text.splitlines()) if "error" in line)
    assert line["error"] == "FileNotFoundError"
    assert line["raised_at"] == ["<string>:16 <module>"]


def test_debug_tells_all() -> None:
    found = lines(level="debug")
    assert "a detail" in [line["event"] for line in found]
    assert any("/secret/path" in line.get("error_message", "") for line in found)


def test_people_get_a_form_of_their_own() -> None:
    text = said(form="console")
    assert "attempt started" in text
    assert "job_1" in text
    assert not text.startswith("{")
