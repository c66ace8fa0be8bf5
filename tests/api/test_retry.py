"""``:retry``: the same spec as a job of its own, once the first one has ended."""

from __future__ import annotations

import pytest
from httpx2 import Response

from ascribe.job import JobState
from ascribe.ledger.base import JobFilter
from tests.api.conftest import Api, problem
from tests.support.handmade import finish, spec_body
from tests.support.ledger import ERROR, claim

KEY = {"Idempotency-Key": "key-1"}


def _retry(api: Api, job_id: str, headers: dict[str, str] | None = None) -> Response:
    response: Response = api.client.post(f"/v1/jobs/{job_id}:retry", headers=headers)
    return response


def _failed(api: Api) -> str:
    job_id = api.submit(labels={"team": "support"}, priority="high")
    api.ledger.fail(claim(api.ledger, job_id), ERROR)
    return job_id


def test_a_retry_is_a_new_job_with_the_same_spec(api: Api) -> None:
    first = _failed(api)
    response = _retry(api, first)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["attempt"], job["retry_of"]) == ("queued", 1, first)
    assert job["id"] != first
    assert api.ledger.spec(job["id"]) == api.ledger.spec(first)
    assert api.ledger.get(first).status is JobState.FAILED, "the first one stays as it is"
    assert api.client.get(f"/v1/jobs/{first}").json()["retry_of"] is None


@pytest.mark.parametrize("end", ["succeeded", "cancelled"])
def test_however_it_ended(api: Api, end: str) -> None:
    job_id = api.submit()
    if end == "succeeded":
        finish(api.ledger, job_id)
    else:
        api.client.post(f"/v1/jobs/{job_id}:cancel")
    assert _retry(api, job_id).json()["retry_of"] == job_id


def test_a_job_that_has_not_ended_is_not_retried(api: Api) -> None:
    job_id = api.submit()
    assert "queued" in problem(_retry(api, job_id), 409, "conflict")["detail"]
    claim(api.ledger, job_id)
    assert "running" in problem(_retry(api, job_id), 409, "conflict")["detail"]
    problem(_retry(api, "job_" + "0" * 32), 404, "not_found")
    assert len(api.ledger.list(JobFilter()).jobs) == 1


def test_a_key_makes_one_retry_even_after_the_first_job_is_gone(api: Api) -> None:
    first, other = _failed(api), _failed(api)
    once = _retry(api, first, KEY)
    api.client.delete(f"/v1/jobs/{first}")
    again = _retry(api, first, KEY)
    assert (once.status_code, again.status_code) == (202, 200)
    assert once.json()["id"] == again.json()["id"]
    problem(_retry(api, other, KEY), 422, "idempotency_key_reused")
    problem(api.client.post("/v1/jobs", json=spec_body(), headers=KEY), 422, "idempotency_key_reused")


def test_what_a_retry_needs_is_checked_again(api: Api) -> None:
    first = _failed(api)
    (api.root / "topics" / "train.jsonl").unlink()
    problem(_retry(api, first), 422, "invalid_input", "/train/source/path")


def test_a_query_is_retried_as_the_query_it_was(api: Api) -> None:
    parent = api.submit()
    finish(api.ledger, parent)
    api.ledger.announce_gradients("5b" * 32, 30)
    rows = {"source": {"kind": "inline", "rows": [{"id": "q2", "text": "squash commits", "label": "coding"}]}}
    query = api.client.post(f"/v1/jobs/{parent}/queries", json={"validation": rows}).json()
    api.client.post(f"/v1/jobs/{query['id']}:cancel")
    retried = _retry(api, query["id"]).json()
    assert (retried["retry_of"], retried["spec"]["query_of"]["job_id"]) == (query["id"], parent)
