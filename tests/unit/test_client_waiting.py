"""How both clients wait: the API holds its replies back where it can, and is polled where it cannot."""

from __future__ import annotations

import time

import httpx
import pytest

from ascribe.client import errors
from tests.support.clients import Call, call_in_a_loop, call_in_place
from tests.support.fake_api import JOB_ID, FakeApi, job, running

APPLIED = {"Preference-Applied": "wait=20", "Retry-After": "5"}


@pytest.fixture(params=[call_in_place, call_in_a_loop], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param
    return made


def shown(record: dict[str, object], tag: str, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=record, headers={"ETag": tag, "Retry-After": "5"} | headers)


def test_the_end_is_noticed_at_once_where_the_api_holds_its_reply(call: Call) -> None:
    api = FakeApi(shown(running("loading", 0.0), '"1"'), shown(job("succeeded"), '"2"', **APPLIED))
    started = time.monotonic()
    assert call(api, lambda client: client.wait(JOB_ID)).status == "succeeded"
    assert time.monotonic() - started < 1  # Retry-After said 5
    first, second = api.requests
    assert "Prefer" not in first.headers
    assert second.headers["Prefer"] == "wait=20"
    assert "If-None-Match" not in second.headers  # its end alone is wanted
    assert second.extensions["timeout"]["read"] == 30 + 20


def test_who_follows_progress_asks_for_every_change(call: Call) -> None:
    unchanged = httpx.Response(304, headers={"ETag": '"2"'} | APPLIED)
    api = FakeApi(
        shown(running("loading", 0.0), '"1"'),
        shown(running("solving", 0.5), '"2"', **APPLIED),
        unchanged,
        shown(running("scoring", 0.5), '"3"'),  # it changed between two replies: nothing was held back
        shown(job("succeeded"), '"4"', **APPLIED),
    )
    seen: list[str] = []
    started = time.monotonic()
    call(
        api,
        lambda client: client.wait(JOB_ID, on_progress=lambda job: seen.append(job.progress and job.progress.phase)),
    )
    assert time.monotonic() - started < 1
    assert seen == ["loading", "solving", "solving", "scoring", None]
    tags = [request.headers.get("If-None-Match") for request in api.requests]
    assert tags == [None, '"1"', '"2"', '"2"', '"3"']


def test_an_api_that_holds_nothing_back_is_polled_as_it_asks(call: Call) -> None:
    steps = [
        httpx.Response(200, json=running("solving", part), headers={"Retry-After": "0.3"}) for part in (0.1, 0.2, 0.3)
    ]
    api = FakeApi(*steps, job("succeeded"))
    started = time.monotonic()
    call(api, lambda client: client.wait(JOB_ID))
    assert time.monotonic() - started > 0.6
    assert len(api.requests) == 4


def test_nobody_is_asked_to_hold_a_reply_longer_than_the_caller_waits(call: Call) -> None:
    api = FakeApi(shown(running("solving", 0.5), '"1"', **{"Retry-After": "0.1"}))
    with pytest.raises(errors.JobTimeout):
        call(api, lambda client: client.wait(JOB_ID, timeout=1.3))
    asked = [request.headers.get("Prefer") for request in api.requests]
    assert asked[:2] == [None, "wait=1"]
    assert asked[-1] is None  # less than a second was left
