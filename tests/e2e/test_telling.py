"""What a real stack tells of its jobs: log lines of service and worker, events, metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job, JobState
from tests.support.jobs import make_spec, make_workshop

PHASES = ["loading", "caching_gradients", "building_curvature", "solving", "scoring", "writing"]
TEXT = "zyzzyva"
"""A word of the inline row, to be found nowhere."""


@dataclass(frozen=True, slots=True)
class Told:
    done: Job
    failed: Job
    logs: dict[str, list[dict[str, Any]]]
    events: list[dict[str, Any]]
    metrics: str

    def of(self, name: str, job: Job) -> list[dict[str, Any]]:
        return [line for line in self.logs[name] if line.get("job_id") == job.id]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("telling")
    root = make_workshop(folder).root
    with Stack(root, state_dir=folder / "state") as stack, Client(stack.url) as client:
        done = client.create_and_wait(make_spec())
        rows = [{"text": TEXT, "label": 99}]
        bad = root / "bad.jsonl"
        bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
        failed = client.create(make_spec(train={"source": {"kind": "file", "path": "bad.jsonl"}}))
        failed = client.wait(failed.id)
        events = httpx.get(f"{stack.url}/v1/jobs/{done.id}/events").json()["data"]
        metrics = httpx.get(f"{stack.url}/metrics").text
        # Before the end: of being told to stop, Celery says a line of its own, past all logging.
        _until(lambda: (stack.log_dir / "worker-1.log").read_text().count("attempt ended") == 2)
        logs = {path.stem: _lines(path) for path in stack.log_dir.glob("*.log")}
    return Told(done, failed, logs, events, metrics)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_of_service_and_worker_is_json_and_said_once(told: Told) -> None:
    assert set(told.logs) == {"api", "worker-1"}
    for lines in told.logs.values():
        assert lines
        assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in lines)
        as_text = [json.dumps(line, sort_keys=True) for line in lines]
        assert len(set(as_text)) == len(as_text)


def test_a_worker_tells_an_attempt_from_start_to_end(told: Told) -> None:
    lines = told.of("worker-1", told.done)
    assert [line["event"] for line in lines] == ["attempt started", *["phase began"] * 6, "attempt ended"]
    assert [line["phase"] for line in lines if "phase" in line] == PHASES
    assert {(line["attempt"], line["fence"]) for line in lines} == {(1, 1)}
    assert lines[-1]["outcome"] == "committed"
    assert lines[-1]["seconds"] > 0


def test_a_failure_is_told_with_its_code_and_none_of_its_data(told: Told) -> None:
    assert told.failed.status is JobState.FAILED
    assert told.failed.error is not None
    *_, ended = told.of("worker-1", told.failed)
    assert (ended["outcome"], ended["code"], ended["level"]) == ("failed", told.failed.error.code, "warning")
    everything = json.dumps(told.logs)
    assert TEXT not in everything
    assert "bad.jsonl" not in everything


def test_the_request_that_made_a_job_is_found_by_its_id(told: Told) -> None:
    (submitted,) = [line for line in told.of("api", told.done) if line["event"] == "job submitted"]
    (request,) = [
        line
        for line in told.logs["api"]
        if line["event"] == "request" and line["request_id"] == submitted["request_id"]
    ]
    assert (request["method"], request["route"], request["status"]) == ("POST", "/v1/jobs", 202)


def test_events_tell_the_same_story(told: Told) -> None:
    assert [event["type"] for event in told.events] == ["created", "started", *["phase"] * 6, "succeeded"]
    assert [event["phase"] for event in told.events if event["phase"]] == PHASES


def test_metrics_tell_how_it_went(told: Told) -> None:
    assert 'ascribe_jobs_finished_total{solver="schulz",status="succeeded"} 1.0' in told.metrics
    assert 'ascribe_jobs_finished_total{solver="schulz",status="failed"} 1.0' in told.metrics
    assert 'ascribe_solver_relative_residual_bucket{le="1e-06",solver="schulz"} 1.0' in told.metrics
    for phase in PHASES:
        assert f'ascribe_job_duration_seconds_count{{phase="{phase}",solver="schulz"}} 1.0' in told.metrics
    assert 'ascribe_workers{queue="cpu"} 1.0' in told.metrics
