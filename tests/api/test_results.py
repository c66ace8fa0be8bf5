"""Scores in every order, page by page; the summary; the report."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ascribe.ledger.base import Policy
from ascribe.ledger.memory import MemoryLedger
from ascribe.result import RowInfo
from ascribe.status import SolveStatus
from tests.api.conftest import Api, StartService, problem
from tests.support.handmade import finish, manifest, scores_of, spec_body, stage, train_rows

ROWS = 30


@pytest.fixture
def job_id(api: Api) -> str:
    return api.submit(output={"self_influence": True})


def scores(api: Api, job_id: str, **query: Any) -> dict[str, Any]:
    response = api.client.get(f"/v1/jobs/{job_id}/scores", params=query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_rows_in_their_order(api: Api, job_id: str) -> None:
    vectors = finish(api.ledger, job_id, rows=ROWS)
    page = scores(api, job_id)
    assert [row["score"] for row in page["data"]] == vectors["mean"]
    assert page["data"][4] == {"index": 4, "score": vectors["mean"][4], **train_rows(ROWS)[4].model_dump()}
    assert (page["order"], page["vector"], page["has_more"], page["next_after"]) == ("row", "mean", False, None)
    assert "lowers the validation loss" in page["sign"]


@pytest.mark.parametrize("order", ["row", "proponents", "opponents"])
@pytest.mark.parametrize("top_k", [None, 7])
def test_pages_join_to_the_whole(api: Api, job_id: str, order: str, top_k: int | None) -> None:
    values = finish(api.ledger, job_id, rows=ROWS)["mean"]
    sign = {"row": 0, "proponents": -1, "opponents": 1}[order]
    expected = sorted(range(ROWS), key=lambda index: sign * values[index])[:top_k]
    query: dict[str, Any] = {"order": order, "limit": 4} | ({"top_k": top_k} if top_k else {})
    found = []
    for _ in range(ROWS):
        page = scores(api, job_id, **query)
        found += [row["index"] for row in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = page["next_after"]
    assert found == expected


def test_top_k_alone_means_proponents(api: Api, job_id: str) -> None:
    values = finish(api.ledger, job_id, rows=ROWS)["mean"]
    page = scores(api, job_id, top_k=3)
    assert page["order"] == "proponents"
    assert [row["score"] for row in page["data"]] == sorted(values, reverse=True)[:3]


@pytest.mark.parametrize("vector", ["self_influence", "train_loss"])
def test_other_vectors(api: Api, job_id: str, vector: str) -> None:
    vectors = finish(api.ledger, job_id, rows=ROWS)
    page = scores(api, job_id, vector=vector)
    assert [row["score"] for row in page["data"]] == vectors[vector]
    assert "validation loss" not in page["sign"]


def test_one_validation_row(api: Api, job_id: str) -> None:
    vectors = finish(api.ledger, job_id, rows=ROWS)
    page = scores(api, job_id, validation_id="q1")
    assert [row["score"] for row in page["data"]] == vectors["validation:0"]
    assert (page["vector"], page["validation_id"]) == ("validation_row", "q1")
    response = api.client.get(f"/v1/jobs/{job_id}/scores?validation_id=s3cr3t")
    assert "s3cr3t" not in problem(response, 404, "not_found")["detail"]


def test_what_was_not_asked_for(api: Api) -> None:
    job_id = api.submit(output={"per_validation_row": False})
    finish(api.ledger, job_id)
    body = problem(api.client.get(f"/v1/jobs/{job_id}/scores?vector=self_influence"), 404, "not_found")
    assert "output.self_influence" in body["detail"]
    body = problem(api.client.get(f"/v1/jobs/{job_id}/scores?validation_id=q1"), 404, "not_found")
    assert "output.per_validation_row" in body["detail"]


def test_cursor_of_other_scores(api: Api, job_id: str) -> None:
    finish(api.ledger, job_id)
    after = scores(api, job_id, limit=1)["next_after"]
    for query in (
        f"order=opponents&after={after}",
        "after=nonsense",
        "after=%C3%A9",
        f"vector=train_loss&after={after}",
    ):
        problem(api.client.get(f"/v1/jobs/{job_id}/scores?{query}"), 400, "bad_cursor")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("topk=3", "/query/topk"),
        ("order=s3cr3t", "/query/order"),
        ("limit=10001", "/query/limit"),
        ("vector=mean&validation_id=", "/query/validation_id"),
        ("vector=train_loss&validation_id=q1", "/query/validation_id"),
    ],
)
def test_wrong_query(api: Api, job_id: str, query: str, pointer: str) -> None:
    response = api.client.get(f"/v1/jobs/{job_id}/scores?{query}")
    problem(response, 422, "invalid_input", pointer)
    assert "s3cr3t" not in response.text


@pytest.mark.parametrize("what", ["scores", "summary", "report"])
def test_not_ready(api: Api, job_id: str, what: str) -> None:
    response = api.client.get(f"/v1/jobs/{job_id}/{what}")
    body = problem(response, 404, "not_ready")
    assert body["retryable"] is True
    assert response.headers["retry-after"] == "1"


def test_scores_expire_before_the_record(start: StartService) -> None:
    now = [1e9]
    ledger = MemoryLedger(Policy(result_ttl_seconds=10, record_ttl_seconds=100), clock=lambda: now[0])
    client = start(ledger)
    job_id = client.post("/v1/jobs", json=spec_body()).json()["id"]
    finish(ledger, job_id)
    now[0] += 11
    problem(client.get(f"/v1/jobs/{job_id}/scores"), 410, "expired")
    assert client.get(f"/v1/jobs/{job_id}/summary").status_code == 200


def test_summary_is_flat(api: Api, job_id: str) -> None:
    finish(api.ledger, job_id, rows=ROWS)
    body = api.client.get(f"/v1/jobs/{job_id}/summary").json()
    assert sum(bin_["count"] for bin_ in body["bins"]) == ROWS
    assert {"phase": "loading", "seconds": 1.2} in body["phases"]
    assert {"dataset": "train", "hit_rows": 0, "rows": 30} in body["cache"]
    assert body["status"] == body["diagnostics"]["status"] == "converged"
    assert len(body["diagnostics"]["blocks"]) == 4


def report(api: Api, job_id: str) -> str:
    response = api.client.get(f"/v1/jobs/{job_id}/report")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src" not in policy
    return response.text


def test_report_says_what_was_found_and_how_far_to_trust_it(api: Api, job_id: str) -> None:
    finish(api.ledger, job_id, rows=300)
    page = report(api, job_id)
    assert "Solved accurately" in page
    assert "work against the validation row" in page
    assert page.count("what is the answer to question") == 20
    assert "bert.encoder.layer.0.attention.self.query.lora_A.weight" in page
    assert "1f" * 32 in page
    assert "&#34;kind&#34;: &#34;schulz&#34;" in page
    assert "<script" not in page
    assert not re.search(r"""(src|href|style)\s*=\s*["']""", page), "self-contained, no inline style"


@pytest.mark.parametrize("status", [s for s in SolveStatus if s.severity > SolveStatus.APPROXIMATE.severity])
def test_a_bad_solve_never_looks_good(api: Api, job_id: str, status: SolveStatus) -> None:
    finish(api.ledger, job_id, status=status, residual=0.5)
    page = report(api, job_id)
    assert "Solved accurately" not in page
    assert 'class="verdict bad"' in page
    assert "1 of 4 blocks did not reach the goal" in page
    assert status.advice.split(":")[0] in page


def test_report_escapes_what_others_wrote(api: Api) -> None:
    evil = '"><script>alert(1)</script>'
    job_id = api.submit(name=evil, labels={"k": evil})
    claim = api.ledger.claim(job_id, 1, "w")
    assert claim is not None
    rows = [RowInfo(id=evil, label=evil, text=evil) for _ in range(3)]
    vectors = {name: [1.0, -1.0, 0.5] for name in ("mean", "train_loss", "validation:0")}
    stage(api.ledger, claim, vectors, rows, rows[:1])
    api.ledger.commit(claim, manifest(claim.spec, vectors, rows, warnings=(evil,)))
    page = report(api, job_id)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_report_of_one_score(api: Api, job_id: str) -> None:
    """Equal scores everywhere: one bin, no zero line, no division by a span of nothing."""
    claim = api.ledger.claim(job_id, 1, "w")
    assert claim is not None
    rows = train_rows(2)
    vectors = {name: [0.0, 0.0] for name in ("mean", "train_loss")}
    done = manifest(claim.spec, {name: scores_of(2) for name in vectors}, rows)
    flat = done.summary.model_copy(
        update={"histogram": done.summary.histogram.model_copy(update={"edges": (0.0, 0.0), "counts": (2,)})}
    )
    stage(api.ledger, claim, vectors, rows, rows[:1])
    api.ledger.commit(claim, done.model_copy(update={"summary": flat}))
    assert "How the mean scores are spread" in report(api, job_id)
    assert len(api.client.get(f"/v1/jobs/{job_id}/summary").json()["bins"]) == 1
