"""Every limit is listed, and every error that a limit causes names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ascribe.errors import LimitExceeded
from ascribe.job import Phase
from ascribe.ledger.base import Policy
from ascribe.ledger.memory import MemoryLedger
from ascribe.limits import check_model
from ascribe.settings import Settings
from ascribe.sources.checkpoints import inspect_checkpoint
from ascribe.spec import JobSpec
from tests.api.conftest import StartService, problem
from tests.support.handmade import BLOCKS, HIDDEN, RANK, spec_body
from worker.progress import Reporter

ROW = {"text": "undo a commit", "label": "coding"}
FIXED = {
    "inline_rows": 10_000,
    "labels": 32,
    "modules": 64,
    "lissa_steps": 1_000_000,
    "jobs_page": 100,
    "scores_page": 10_000,
    "matrix_columns": 10_000,
}


def inline(rows: int) -> dict[str, Any]:
    return {"source": {"kind": "inline", "rows": [ROW] * rows}}


def test_every_limit_with_its_value_and_its_setting(start: StartService) -> None:
    limits = {limit["name"]: limit for limit in start(max_rows=7).get("/v1/limits").json()["data"]}
    assert limits["max_rows"]["value"] == 7
    assert limits["max_rows"]["setting"] == "ASCRIBE_MAX_ROWS"
    assert {name: limit["value"] for name, limit in limits.items() if limit["setting"] is None} == FIXED
    assert all(limit["description"] for limit in limits.values())
    assert limits.keys() >= {
        "max_row_tokens",
        "max_parameters",
        "max_cells",
        "max_job_seconds",
        "max_queued_jobs",
        "max_file_bytes",
        "max_line_bytes",
        "max_body_bytes",
        "reader_memory_bytes",
    }


def test_what_no_worker_has_room_for_is_refused_at_submit_where_the_limit_is_known(start: StartService) -> None:
    detail = problem(start(max_memory_bytes=1 << 20).post("/v1/jobs", json=spec_body()), 422, "does_not_fit")["detail"]
    assert "a worker has 1 MiB (limit max_memory_bytes)" in detail
    assert start(max_memory_bytes=1 << 30).post("/v1/jobs", json=spec_body()).status_code == 202
    assert start().post("/v1/jobs", json=spec_body()).status_code == 202, "the service's own machine says nothing"


@pytest.mark.parametrize(
    ("setting", "body", "pointer"),
    [
        ({"max_rows": 3}, {"train": inline(4)}, "/train/limit"),
        ({"max_cells": 11}, {"train": inline(4)}, "/output/per_validation_row"),
        ({"max_row_tokens": 100}, {}, "/model/max_length"),
        ({"max_parameters": BLOCKS * RANK * HIDDEN - 1}, {}, "/parameters"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) and value else None,
)
def test_an_error_names_its_limit(
    start: StartService, setting: dict[str, Any], body: dict[str, Any], pointer: str
) -> None:
    client = start(**setting)
    (name,) = setting
    for path in ("/v1/jobs", "/v1/jobs:validate"):
        found = problem(client.post(path, json=spec_body(**body)), 422, "limit_exceeded", pointer)
        assert found["code"] == "limit_exceeded"
        assert f"the limit {name}" in found["detail"]
    listed = {limit["name"] for limit in client.get("/v1/limits").json()["data"]}
    assert name in listed


def test_what_reaches_a_limit_is_taken(start: StartService) -> None:
    client = start(max_rows=4, max_cells=12, max_row_tokens=128, max_parameters=BLOCKS * RANK * HIDDEN)
    assert client.post("/v1/jobs", json=spec_body(train=inline(4))).status_code == 202


def test_a_body_over_the_limit_names_it(start: StartService) -> None:
    body = json.dumps(spec_body(train=inline(100)))
    response = start(max_body_bytes=2000).post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert "max_body_bytes" in problem(response, 413, "body_too_large")["detail"]


def test_a_full_queue_answers_429_and_replays(start: StartService) -> None:
    client = start(MemoryLedger(Policy(max_queued_jobs=1)))
    key = {"Idempotency-Key": "k1"}
    first = client.post("/v1/jobs", json=spec_body(), headers=key)
    assert first.status_code == 202
    refused = client.post("/v1/jobs", json=spec_body())
    body = problem(refused, 429, "queue_full")
    assert "max_queued_jobs" in body["detail"]
    assert body["retryable"] is True
    assert int(refused.headers["retry-after"]) >= 1
    replayed = client.post("/v1/jobs", json=spec_body(), headers=key)
    assert (replayed.status_code, replayed.json()["id"]) == (200, first.json()["id"])
    client.post(f"/v1/jobs/{first.json()['id']}:cancel")
    assert client.post("/v1/jobs", json=spec_body()).status_code == 202


def test_the_worker_checks_the_model_again(root: Path) -> None:
    """Its settings may be stricter than the service's."""
    spec = JobSpec.model_validate(spec_body())
    checkpoint = inspect_checkpoint(root, spec.model, spec.parameters)
    with pytest.raises(LimitExceeded, match="max_row_tokens"):
        check_model(spec, checkpoint, Settings(max_row_tokens=127))


@pytest.mark.parametrize(("seconds", "ends"), [(9, False), (11, True)])
def test_a_job_over_its_seconds_ends(monkeypatch: pytest.MonkeyPatch, seconds: float, ends: bool) -> None:
    now = 100.0
    monkeypatch.setattr("worker.progress.time.monotonic", lambda: now)
    reporter = Reporter(lambda _: False, max_seconds=10)

    def work() -> None:
        nonlocal now
        with reporter.phase(Phase.SOLVING, 100):
            now += seconds
            reporter.advance()

    if not ends:
        work()
        return
    with pytest.raises(LimitExceeded, match="ran for 10 seconds, the limit max_job_seconds"):
        work()
