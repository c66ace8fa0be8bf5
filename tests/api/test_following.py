"""Following a job without asking again and again: events, streams, held answers, tags, completion."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from httpx2 import Response

from ascribe.event import MAX_EVENTS
from ascribe.job import JobError, Phase, Progress
from ascribe.ledger.base import Claim
from tests.api.conftest import Api, StartService, problem
from tests.support.handmade import finish, spec_body
from tests.support.ledger import ERROR, claim

SSE = {"Accept": "text/event-stream"}


def later(seconds: float, call: Callable[[], object]) -> threading.Thread:
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


def said(response: Response) -> list[dict[str, Any]]:
    """The events of a stream, checked to be server-sent ones."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["id"]), event["type"])
            found.append(event)
    return found


# -- events ---------------------------------------------------------------------------------------------------


def test_events_are_a_list_with_a_cursor(api: Api) -> None:
    job_id = api.submit()
    finish(api.ledger, job_id)
    url = f"/v1/jobs/{job_id}/events"

    whole = api.client.get(url).json()
    page = api.client.get(url, params={"limit": 2}).json()
    rest = api.client.get(url, params={"after": page["last_id"]}).json()

    assert [event["type"] for event in whole["data"]] == ["created", "started", "succeeded"]
    assert (whole["object"], whole["has_more"], whole["first_id"], whole["last_id"]) == ("list", False, 1, 3)
    assert (page["data"] + rest["data"], page["has_more"]) == (whole["data"], True)
    assert api.client.get(url, params={"after": 3}).json()["last_id"] is None


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"limit={MAX_EVENTS + 1}", "limit=0", "before=3"])
def test_events_refuse_a_wrong_query(api: Api, query: str) -> None:
    problem(api.client.get(f"/v1/jobs/{api.submit()}/events?{query}"), 422, "invalid_input")


def test_events_come_in_two_forms(api: Api) -> None:
    job_id = api.submit()
    problem(api.client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "image/png"}), 406, "not_acceptable")
    assert api.client.get(f"/v1/jobs/{job_id}/events").headers["vary"] == "Accept"


def test_a_stream_tells_events_while_they_happen_and_ends_with_the_job(api: Api) -> None:
    job_id = api.submit()
    owners: list[Claim] = []
    steps = [
        later(0.2, lambda: owners.append(claim(api.ledger, job_id))),
        later(0.8, lambda: api.ledger.progress(owners[0], Progress(phase=Phase.SOLVING, done=0, total=1, fraction=0))),
        later(1.4, lambda: api.ledger.fail(owners[0], ERROR)),
    ]

    began = time.monotonic()
    response = api.client.get(f"/v1/jobs/{job_id}/events", headers=SSE)

    assert [event["type"] for event in said(response)] == ["created", "started", "phase", "failed"]
    assert said(response)[-1]["code"] == JobError.model_validate(ERROR).code
    assert 1.3 < time.monotonic() - began < 5
    assert response.headers["cache-control"] == "no-cache"
    for step in steps:
        step.join()


@pytest.mark.parametrize("how", [{"headers": SSE | {"Last-Event-ID": "2"}}, {"headers": SSE, "params": {"after": 2}}])
def test_a_stream_goes_on_after_the_last_event_seen(api: Api, how: dict[str, Any]) -> None:
    job_id = api.submit()
    finish(api.ledger, job_id)
    assert [event["id"] for event in said(api.client.get(f"/v1/jobs/{job_id}/events", **how))] == [3]


def test_a_stream_that_has_told_everything_is_not_opened_again(api: Api) -> None:
    job_id = api.submit()
    finish(api.ledger, job_id)
    response = api.client.get(f"/v1/jobs/{job_id}/events", headers=SSE | {"Last-Event-ID": "3"})
    assert (response.status_code, response.content) == (204, b"")


def test_a_stream_ends_when_its_job_is_deleted(api: Api) -> None:
    job_id = api.submit()

    def end_and_delete() -> None:
        with api.ledger._lock:  # both before anybody looks
            api.ledger.request_cancel(job_id)
            api.ledger.delete(job_id)

    timer = later(0.5, end_and_delete)
    events = said(api.client.get(f"/v1/jobs/{job_id}/events", headers=SSE))
    timer.join()
    assert [event["type"] for event in events] == ["created"]


def test_a_bad_last_event_id_is_refused(api: Api) -> None:
    response = api.client.get(f"/v1/jobs/{api.submit()}/events", headers=SSE | {"Last-Event-ID": "x"})
    problem(response, 422, "invalid_input", "/header/last-event-id")


def test_followers_are_bounded_and_the_others_poll(start: StartService) -> None:
    client = start(max_followers=0)
    job = client.post("/v1/jobs", json=spec_body(), headers={"Prefer": "wait=60"})
    assert (job.status_code, job.headers.get("preference-applied")) == (202, None)
    url = f"/v1/jobs/{job.json()['id']}"
    assert client.get(url, headers={"Prefer": "wait=60"}).status_code == 200
    refused = client.get(f"{url}/events", headers=SSE)
    assert problem(refused, 503, "too_many_followers")["retryable"] is True
    assert client.get(f"{url}/events").status_code == 200


# -- held answers ---------------------------------------------------------------------------------------------


def test_a_job_that_ends_in_time_is_answered_in_the_end(api: Api) -> None:
    def work() -> None:
        while not api.doorbell.rings:
            time.sleep(0.01)
        finish(api.ledger, api.doorbell.rings[0].job_id)

    worker = later(0.3, work)
    response = api.client.post("/v1/jobs", json=spec_body(), headers={"Prefer": "respond-async, wait=20"})
    worker.join()

    assert response.status_code == 200
    assert response.json()["status"] == "succeeded"
    assert response.headers["preference-applied"] == "wait=20"
    assert "retry-after" not in response.headers


def test_a_job_that_does_not_is_answered_as_it_stands(api: Api) -> None:
    response = api.client.post("/v1/jobs", json=spec_body(), headers={"Prefer": "wait=1"})
    assert (response.status_code, response.json()["status"]) == (202, "queued")
    assert response.headers["preference-applied"] == "wait=1"
    began = time.monotonic()
    job = api.client.get(f"/v1/jobs/{response.json()['id']}", headers={"Prefer": "wait=1"})
    assert (job.status_code, job.headers["retry-after"]) == (200, "1")
    assert 0.9 < time.monotonic() - began < 5


def test_getting_a_job_waits_for_its_end(api: Api) -> None:
    job_id = api.submit()
    worker = later(0.5, lambda: finish(api.ledger, job_id))
    job = api.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()
    worker.join()
    assert job["status"] == "succeeded"


@pytest.mark.parametrize(
    "prefer", ["wait", "wait=", "wait=-1", "wait=x", "return=minimal", "wait=99999999999999999999"]
)
def test_a_preference_that_cannot_be_read_is_ignored(api: Api, prefer: str) -> None:
    job_id = api.submit()
    response = api.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": prefer})
    assert (response.status_code, response.headers.get("preference-applied")) == (200, None)


def test_no_answer_is_held_longer_than_a_minute(api: Api) -> None:
    job_id = api.submit()
    finish(api.ledger, job_id)
    response = api.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=3600"})
    assert response.headers["preference-applied"] == "wait=60"


def test_completion_is_there_when_the_job_has_ended(api: Api) -> None:
    job_id = api.submit()
    early = api.client.get(f"/v1/jobs/{job_id}/completion")
    assert problem(early, 404, "not_ready")["retryable"] is True
    assert early.headers["retry-after"] == "1"
    api.client.post(f"/v1/jobs/{job_id}:cancel")
    done = api.client.get(f"/v1/jobs/{job_id}/completion")
    assert (done.status_code, done.json()["status"]) == (200, "cancelled")
    assert done.json() == api.client.get(f"/v1/jobs/{job_id}").json()


# -- tags -----------------------------------------------------------------------------------------------------


def test_an_unchanged_job_is_not_sent_again(api: Api) -> None:
    created = api.post()
    url, tag = created.headers["location"], created.headers["etag"]
    assert api.client.get(url).headers["etag"] == tag
    for header in (tag, f'"other", W/{tag}', "*"):
        same = api.client.get(url, headers={"If-None-Match": header})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert api.client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_every_change_makes_a_new_tag(api: Api) -> None:
    job_id = api.submit()
    tags = [api.client.get(f"/v1/jobs/{job_id}").headers["etag"]]
    owner = claim(api.ledger, job_id)
    for done in (1, 2):
        tags.append(api.client.get(f"/v1/jobs/{job_id}").headers["etag"])
        api.ledger.progress(owner, Progress(phase=Phase.SOLVING, done=done, total=4, fraction=done / 4))
    tags.append(api.client.post(f"/v1/jobs/{job_id}:cancel").headers["etag"])
    assert len(set(tags)) == len(tags)
    assert api.client.get(f"/v1/jobs/{job_id}").headers["etag"] == tags[-1]


def test_a_tag_and_a_wait_hold_the_answer_until_the_job_is_another(api: Api) -> None:
    created = api.post()
    url = created.headers["location"]
    held = {"If-None-Match": created.headers["etag"], "Prefer": "wait=20"}
    worker = later(0.5, lambda: claim(api.ledger, created.json()["id"]))
    changed = api.client.get(url, headers=held)
    worker.join()
    assert (changed.status_code, changed.json()["status"]) == (200, "running")
    assert api.client.get(url, headers=held).status_code == 200, "another already: there is nothing to wait for"
    waited = {"If-None-Match": changed.headers["etag"], "Prefer": "wait=1"}
    still = api.client.get(url, headers=waited)
    assert (still.status_code, still.headers["preference-applied"]) == (304, "wait=1")


RESULTS = [
    "/scores",
    "/scores?order=opponents&top_k=3",
    "/scores?format=ndjson",
    "/scores?format=csv",
    "/summary",
    "/report",
]


@pytest.mark.parametrize("path", RESULTS)
def test_a_result_is_not_sent_again(api: Api, path: str) -> None:
    job_id = api.submit()
    finish(api.ledger, job_id)
    url = f"/v1/jobs/{job_id}{path}"
    tag = api.client.get(url).headers["etag"]
    same = api.client.get(url, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert api.client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_no_two_results_share_a_tag(api: Api) -> None:
    jobs = [api.submit(), api.submit()]
    for job_id in jobs:
        finish(api.ledger, job_id)
    tags = [api.client.get(f"/v1/jobs/{job_id}{path}").headers["etag"] for job_id in jobs for path in RESULTS]
    assert len(set(tags)) == len(tags)


# -- inline rows ----------------------------------------------------------------------------------------------


def test_inline_rows_are_counted_and_sent_only_when_asked_for(api: Api) -> None:
    rows = [{"id": f"q{number}", "text": "undo a commit", "label": "coding"} for number in range(1000)]
    created = api.post(validation={"source": {"kind": "inline", "rows": rows}})
    url = created.headers["location"]

    (listed,) = api.client.get("/v1/jobs").json()["data"]
    light = api.client.get(url)
    full = api.client.get(url, params={"include": "rows"})

    for job in (created.json(), listed, light.json()):
        assert job["spec"]["validation"]["source"] == {"kind": "inline", "rows": [], "row_count": 1000}
    carried = full.json()["spec"]["validation"]["source"]
    assert [row["id"] for row in carried["rows"]] == [row["id"] for row in rows]
    assert carried["row_count"] == 1000
    assert len(light.content) < 3000
    assert full.headers["etag"] != light.headers["etag"]
    problem(api.client.get(url, params={"include": "spec"}), 422, "invalid_input", "/query/include")


def test_a_view_is_no_spec(api: Api) -> None:
    """What a list shows of inline rows cannot be submitted by mistake."""
    view = api.post().json()["spec"]
    problem(api.client.post("/v1/jobs", json=view), 422, "unknown_field", "/validation/source/row_count")
