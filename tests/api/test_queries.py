"""New questions to a job that succeeded: what job they make, and of which jobs one cannot ask."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from httpx2 import Response

from ascribe.errors import InternalError
from ascribe.job import JobError
from ascribe.ledger.base import JobFilter
from ascribe.result import Reuse
from ascribe.spec import OutputSpec
from service.results import report
from tests.api.conftest import Api
from tests.support.handmade import finish, spec_body

FINGERPRINT = "5b" * 32
"""Of the train gradients of a job that ``finish`` ended."""
VALIDATION = {"source": {"kind": "inline", "rows": [{"id": "q2", "text": "squash commits", "label": "coding"}]}}
KEY = {"Idempotency-Key": "key-1"}


@pytest.fixture
def parent(api: Api) -> str:
    """A job that succeeded and whose gradients are cached."""
    job_id = api.submit(output={"self_influence": True})
    finish(api.ledger, job_id)
    api.ledger.announce_gradients(FINGERPRINT, 30)
    return job_id


def _ask(api: Api, job_id: str, headers: dict[str, str] | None = None, **fields: Any) -> Response:
    body = {"validation": VALIDATION} | fields
    response: Response = api.client.post(f"/v1/jobs/{job_id}/queries", json=body, headers=headers)
    return response


def test_a_query_is_a_job_with_the_parents_spec_and_new_rows(api: Api, parent: str) -> None:
    response = _ask(api, parent, name="one more", labels={"team": "search"})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["id"] != parent
    asked, first = api.ledger.spec(job["id"]), api.ledger.spec(parent)
    changed = {"name", "labels", "validation", "query_of"}
    assert asked.model_dump(exclude=changed) == first.model_dump(exclude=changed)
    assert (asked.name, asked.labels) == ("one more", {"team": "search"})
    assert asked.validation.source.model_dump(mode="json", exclude_none=True) == VALIDATION["source"]


def test_a_query_names_its_parent_and_what_it_must_find(api: Api, parent: str) -> None:
    job_id = _ask(api, parent).json()["id"]
    assert api.client.get(f"/v1/jobs/{job_id}").json()["spec"]["query_of"] == {
        "job_id": parent,
        "base_sha256": "1f" * 32,
        "adapter_sha256": "2e" * 32,
        "train_sha256": "3d" * 32,
    }
    assert api.client.get(f"/v1/jobs/{parent}").json()["spec"]["query_of"] is None


def test_the_queries_of_a_job_can_be_listed(api: Api, parent: str) -> None:
    child = _ask(api, parent).json()["id"]
    listed = api.client.get("/v1/jobs", params={"query_of": parent}).json()
    assert [job["id"] for job in listed["data"]] == [child]
    problem = api.client.get("/v1/jobs", params={"query_of": "nobody"})
    assert (problem.status_code, problem.json()["errors"][0]["pointer"]) == (422, "/query/query_of")


def test_columns_are_the_earlier_jobs_unless_given(api: Api) -> None:
    columns = {"id": "id", "text": "text", "text_pair": None, "label": "label"}
    train = {"source": {"kind": "file", "path": "topics/train.jsonl"}, "columns": columns | {"text_pair": "context"}}
    parent = api.submit(train=train)
    finish(api.ledger, parent)
    api.ledger.announce_gradients(FINGERPRINT, 30)
    same_file = {"source": train["source"]}
    as_before = api.ledger.spec(_ask(api, parent, validation=same_file).json()["id"])
    given = api.ledger.spec(_ask(api, parent, validation=same_file | {"columns": columns}).json()["id"])
    assert as_before.validation.columns.text_pair == "context"
    assert given.validation.columns.text_pair is None


def test_output_may_be_another(api: Api, parent: str) -> None:
    job = _ask(api, parent, output={"per_validation_row": False}).json()
    assert job["spec"]["output"] == OutputSpec(per_validation_row=False).model_dump()


def test_a_query_can_be_asked_again_in_its_turn(api: Api, parent: str) -> None:
    child = _ask(api, parent).json()["id"]
    finish(api.ledger, child)
    assert _ask(api, child).json()["spec"]["query_of"]["job_id"] == child


def test_an_unknown_parent(api: Api) -> None:
    problem = _ask(api, "job_" + "0" * 32)
    assert (problem.status_code, problem.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("end", ["queued", "failed", "cancelled"])
def test_a_parent_that_did_not_succeed(api: Api, end: str) -> None:
    job_id = api.submit()
    if end == "failed":
        claim = api.ledger.claim(job_id, 1, "w")
        assert claim is not None
        api.ledger.fail(claim, JobError.of(InternalError("a fault of ours")))
    elif end == "cancelled":
        api.ledger.request_cancel(job_id)
    problem = _ask(api, job_id)
    assert (problem.status_code, problem.json()["code"]) == (409, "conflict")
    assert end in problem.json()["detail"]


def test_a_parent_whose_gradients_are_gone(api: Api) -> None:
    job_id = api.submit()
    finish(api.ledger, job_id)
    problem = _ask(api, job_id)
    assert (problem.status_code, problem.json()["code"]) == (410, "expired")
    assert "gradients" in problem.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"validation": {"source": {"kind": "inline", "rows": []}}}, "/validation/source/rows"),
        (
            {"validation": {"source": {"kind": "inline", "rows": [{"text": "hi", "label": "sports"}]}}},
            "/validation/source/rows/0/label",
        ),
        ({"validation": {"source": {"kind": "file", "path": "none.jsonl"}}}, "/validation/source/path"),
        ({"solver": {"kind": "cholesky"}}, "/solver"),
    ],
)
def test_what_is_wrong_with_a_query_is_pointed_at(api: Api, parent: str, fields: dict[str, Any], pointer: str) -> None:
    problem = _ask(api, parent, **fields)
    assert problem.status_code == 422, problem.text
    assert problem.json()["errors"][0]["pointer"] == pointer
    assert "sports" not in problem.text


def test_one_key_makes_one_query(api: Api, parent: str) -> None:
    first, again = _ask(api, parent, headers=KEY), _ask(api, parent, headers=KEY)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert _ask(api, parent, headers=KEY, name="other").json()["code"] == "idempotency_key_reused"


def test_one_key_for_a_job_and_a_query_is_a_mistake(api: Api, parent: str) -> None:
    assert api.client.post("/v1/jobs", json=spec_body(), headers=KEY).status_code == 202
    assert _ask(api, parent, headers=KEY).json()["code"] == "idempotency_key_reused"


def test_a_query_that_is_done_in_time_is_answered_with_its_result(api: Api, parent: str) -> None:
    known = {job.id for job in _jobs(api)}

    def work() -> None:
        while not (new := [job.id for job in _jobs(api) if job.id not in known]):
            time.sleep(0.01)
        finish(api.ledger, new[0])

    worker = threading.Thread(target=work)
    worker.start()
    response = _ask(api, parent, headers={"Prefer": "wait=20"})
    worker.join()
    assert response.status_code == 200
    assert response.json()["status"] == "succeeded"
    assert response.json()["result"]["validation_rows"] == 1


def _jobs(api: Api) -> Any:
    return api.ledger.list(JobFilter()).jobs


def test_a_query_that_takes_longer_is_a_job_to_follow(api: Api, parent: str) -> None:
    response = _ask(api, parent, headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert response.json()["status"] == "queued"


def test_the_report_says_what_was_reused(api: Api, parent: str) -> None:
    job = api.ledger.get(parent)
    assert job.result is not None
    use = Reuse(reused=23, of=24, keeps="the inverse")
    diagnostics = job.result.diagnostics.model_copy(update={"reused": {"solution": use}})
    page = report.render(job, job.result.model_copy(update={"diagnostics": diagnostics}))
    assert "the solution of 23 of 24 blocks (the inverse)" in page
