"""Both clients against scripted replies: requests made, retries, typed errors, waiting."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import stamina

import ascribe
from ascribe.client import Client, errors
from ascribe.client.discovery import DEFAULT_URL, Running, find_url, read_running, remove_running, write_running
from ascribe.job import JobError
from ascribe.spec import DatasetSpec, JobSpec
from tests.support.clients import Call, call_in_a_loop, call_in_place
from tests.support.fake_api import JOB_ID, PROBLEM, ROWS, SHOWN_SPEC, SPEC, FakeApi, job, problem, running


@pytest.fixture(autouse=True)
def _no_backoff() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture(params=[call_in_place, call_in_a_loop], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param
    return made


def test_create_sends_the_spec_with_a_fresh_idempotency_key(call: Call) -> None:
    api = FakeApi(job())
    key = {"api_key": "secret-secret-secret"}
    created = call(api, lambda client: client.create(SPEC), **key)
    call(api, lambda client: client.create(JobSpec.model_validate(SPEC)), **key)
    assert created.id == JOB_ID
    first, second = api.requests
    assert (first.method, first.url.path) == ("POST", "/v1/jobs")
    assert first.headers["Authorization"] == "Bearer secret-secret-secret"
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert api.bodies[0] == SPEC
    assert JobSpec.model_validate(api.bodies[1]) == JobSpec.model_validate(SPEC)


def test_a_lost_reply_is_repeated_with_the_same_key(call: Call) -> None:
    api = FakeApi(httpx.ReadError("reset"), job())
    assert call(api, lambda client: client.create(SPEC)).id == JOB_ID
    first, second = (request.headers["Idempotency-Key"] for request in api.requests)
    assert first == second


def test_a_retry_has_a_key_too(call: Call) -> None:
    api = FakeApi(httpx.ReadError("reset"), job(retry_of=JOB_ID))
    assert call(api, lambda client: client.retry(JOB_ID)).retry_of == JOB_ID
    first, second = api.requests
    assert (first.method, first.url.path) == ("POST", f"/v1/jobs/{JOB_ID}:retry")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    api = FakeApi(job())
    call(api, lambda client: client.retry(JOB_ID, idempotency_key="mine"))
    assert api.requests[0].headers["Idempotency-Key"] == "mine"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_retryable_is_tried_again(call: Call, status: int) -> None:
    api = FakeApi(problem(status), problem(status), job())
    assert call(api, lambda client: client.get(JOB_ID)).id == JOB_ID
    assert len(api.requests) == 3


def test_retry_after_is_honoured_and_a_long_one_is_not_waited_for(call: Call) -> None:
    with stamina.set_testing(False):
        api = FakeApi(problem(503, **{"Retry-After": "0.05"}), job())
        assert call(api, lambda client: client.get(JOB_ID)).id == JOB_ID
        api = FakeApi(problem(503, **{"Retry-After": "3600"}))
        with pytest.raises(errors.Unavailable) as caught:
            call(api, lambda client: client.get(JOB_ID))
    assert len(api.requests) == 1
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthorized),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.Gone),
        (413, errors.TooLarge),
        (415, errors.BadRequest),
        (422, errors.Invalid),
        (500, errors.ServerError),
    ],
)
def test_each_status_has_its_error_and_is_not_repeated(call: Call, status: int, kind: type[errors.ApiError]) -> None:
    api = FakeApi(problem(status, code="some_code"))
    with pytest.raises(kind) as caught:
        call(api, lambda client: client.create(SPEC))
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, "some_code", "req_1")
    assert caught.value.errors[0].pointer == "/solver/kind"
    assert "/solver/kind: goes with schulz" in str(caught.value)
    assert len(api.requests) == 1


def test_an_error_without_a_problem_document_still_has_its_class(call: Call) -> None:
    with pytest.raises(errors.Unavailable, match="HTTP 502"):
        call(FakeApi(httpx.Response(502, text="<html>proxy</html>")), lambda client: client.get(JOB_ID))


def test_a_reply_that_is_not_ours_says_so(call: Call) -> None:
    with pytest.raises(errors.UnexpectedReply, match="check the address"):
        call(FakeApi(httpx.Response(200, text="hello")), lambda client: client.get(JOB_ID))


def test_fields_of_a_newer_server_are_ignored(call: Call) -> None:
    assert (
        call(FakeApi(job() | {"new": 1, "spec": SHOWN_SPEC | {"new": 2}}), lambda client: client.get(JOB_ID)).id
        == JOB_ID
    )


def test_nobody_answering_says_what_to_do(call: Call) -> None:
    api = FakeApi(httpx.ConnectError("refused"))
    with pytest.raises(errors.NoConnection, match="ascribe up") as caught:
        call(api, lambda client: client.get(JOB_ID))
    assert "ASCRIBE_URL" in str(caught.value)
    assert call(api, lambda client: client.ready()) is False


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(errors.ClientError, match="http://"):
        Client("localhost:8000")


def test_deleting_again_after_a_lost_reply_is_done(call: Call) -> None:
    call(FakeApi(httpx.ReadError("reset"), problem(404)), lambda client: client.delete(JOB_ID))
    with pytest.raises(errors.NotFound):
        call(FakeApi(problem(404)), lambda client: client.delete(JOB_ID))


def test_an_id_cannot_reach_another_path(call: Call) -> None:
    api = FakeApi(problem(404))
    with pytest.raises(errors.NotFound):
        call(api, lambda client: client.get("../../version"))
    assert api.requests[0].url.raw_path == b"/v1/jobs/..%2F..%2Fversion"


def test_list_follows_pages_and_stops_at_the_limit(call: Call) -> None:
    page = {"object": "list", "data": [job(), job()], "has_more": True, "first_id": JOB_ID, "last_id": JOB_ID}
    api = FakeApi(page)
    assert (
        len(
            call(
                api, lambda client: client.list(status="running", query_of=JOB_ID, labels={"team": "support"}, limit=3)
            )
        )
        == 3
    )
    first, second = (request.url.params for request in api.requests)
    assert dict(first) == {"status": "running", "query_of": JOB_ID, "limit": "3", "label.team": "support"}
    assert second["after"] == JOB_ID


def test_scores_follow_pages(call: Call) -> None:
    envelope = {"object": "list", "job_id": JOB_ID, "vector": "mean", "sign": "..."}
    first = envelope | {"data": ROWS[:1], "has_more": True, "next_after": 0}
    api = FakeApi(first, envelope | {"data": ROWS[1:], "has_more": False, "next_after": None})
    rows = call(api, lambda client: client.scores(JOB_ID, order="proponents", top_k=2))
    assert [row.id for row in rows] == ["a", "b"]
    assert api.requests[0].url.params["order"] == "proponents"
    assert api.requests[1].url.params["after"] == "0"


def test_wait_polls_until_the_end_and_reports_progress(call: Call) -> None:
    soon = {"Retry-After": "0.01"}
    steps = [running("loading", 0.0), running("solving", 0.5)]
    api = FakeApi(*(httpx.Response(200, json=step, headers=soon) for step in steps), job("succeeded"))
    seen: list[str] = []
    done = call(
        api,
        lambda client: client.wait(
            JOB_ID, on_progress=lambda step: seen.append(step.progress.phase if step.progress else step.status)
        ),
    )
    assert done.result is not None
    assert seen == ["loading", "solving", "succeeded"]


def test_wait_gives_up_after_its_time_with_the_job_in_hand(call: Call) -> None:
    api = FakeApi(httpx.Response(200, json=running("solving", 0.5), headers={"Retry-After": "5"}))
    with pytest.raises(errors.JobTimeout) as caught:
        call(api, lambda client: client.wait(JOB_ID, timeout=0.05))
    assert caught.value.job.status == "running"


def test_create_and_wait_raises_by_outcome(call: Call) -> None:
    assert call(FakeApi(job(), job("succeeded")), lambda client: client.create_and_wait(SPEC)).status == "succeeded"
    with pytest.raises(errors.JobFailed, match="/solver/kind") as caught:
        call(FakeApi(job(), job("failed")), lambda client: client.create_and_wait(SPEC))
    assert caught.value.job.error is not None
    assert caught.value.job.error.code == PROBLEM["code"]
    with pytest.raises(errors.JobCancelled):
        call(FakeApi(job(), job("cancelled")), lambda client: client.create_and_wait(SPEC))


def test_the_address_comes_from_the_environment_else_from_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASCRIBE_URL", raising=False)
    monkeypatch.setenv("ASCRIBE_STATE_DIR", str(tmp_path))
    assert find_url() == DEFAULT_URL
    write_running(tmp_path, Running(url="http://127.0.0.1:4711", pid=os.getpid(), started_at=datetime.now(UTC)))
    assert find_url() == "http://127.0.0.1:4711"
    monkeypatch.setenv("ASCRIBE_URL", "http://elsewhere:1")
    assert find_url() == "http://elsewhere:1"
    remove_running(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_up_left_is_ignored(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_running(tmp_path, Running(url="http://127.0.0.1:4711", pid=gone.pid, started_at=datetime.now(UTC)))
    assert read_running(tmp_path) is None


def test_the_package_loads_no_http_client_until_one_is_wanted() -> None:
    code = "import sys, ascribe.spec, ascribe.job; assert not {'httpx', 'stamina', 'typer', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert ascribe.Client is Client
    with pytest.raises(AttributeError):
        ascribe.Nothing  # noqa: B018


def test_a_query_is_a_job_about_another(call: Call) -> None:
    api = FakeApi(httpx.ReadError("reset"), job())
    validation = {"source": {"kind": "inline", "rows": [{"text": "hello", "label": 0}]}}
    asked = call(api, lambda client: client.query(JOB_ID, validation, name="again"))
    assert asked.id == JOB_ID
    first, second = api.requests
    assert (second.method, second.url.path) == ("POST", f"/v1/jobs/{JOB_ID}/queries")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert api.bodies[1] == {"validation": validation, "name": "again"}
    call(api, lambda client: client.query(JOB_ID, DatasetSpec.model_validate(validation)))
    assert DatasetSpec.model_validate(api.bodies[2]["validation"]) == DatasetSpec.model_validate(validation)


def test_events_follow_pages(call: Call) -> None:
    def event(number: int) -> dict[str, object]:
        steps = {"type": "started", "created_at": "2026-01-01T00:00:00Z", "attempt": 1, "message": "A worker started."}
        return {"object": "event", "id": number, "job_id": JOB_ID, **steps}

    pages = [{"data": [event(1)], "has_more": True, "last_id": 1}, {"data": [event(2)], "has_more": False}]
    api = FakeApi(*pages)
    assert [each.id for each in call(api, lambda client: client.events(JOB_ID))] == [1, 2]
    assert [dict(request.url.params) for request in api.requests] == [{}, {"after": "1"}]


def test_a_single_problem_is_said_once() -> None:
    item = {"pointer": "/solver/kind", "code": "some_code", "message": "goes with schulz"}
    one = JobError.model_validate(PROBLEM | {"detail": "/solver/kind: goes with schulz", "errors": [item]})
    assert errors.describe(one).splitlines()[:2] == ["Invalid input", "  /solver/kind: goes with schulz"]
    two = one.model_copy(update={"detail": "2 problems", "errors": one.errors * 2})
    assert errors.describe(two).startswith("Invalid input: 2 problems")
