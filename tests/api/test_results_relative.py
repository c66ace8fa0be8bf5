"""Scores over the root of the row's self-influence: ranked, paged and written as any, and of the right damping."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.api.conftest import Api, problem
from tests.support.handmade import finish


def _job(api: Api, **output: Any) -> tuple[str, dict[str, list[float]]]:
    job_id = api.submit(damping={"relative": [0.1, 1.0]}, output={"self_influence": True} | output)
    return job_id, finish(api.ledger, job_id)


def _ask(api: Api, job_id: str, **query: Any) -> Any:
    return api.client.get(f"/v1/jobs/{job_id}/scores", params={"relative": "true"} | query)


def _expected(scores: list[float], own: list[float]) -> list[float]:
    return [score / math.sqrt(value) if value > 0 else 0.0 for score, value in zip(scores, own, strict=True)]


@pytest.mark.parametrize(("damping", "place"), [(0.1, ""), (1.0, "@1")])
def test_scores_are_over_the_root_of_the_rows_own(api: Api, damping: float, place: str) -> None:
    job_id, vectors = _job(api)
    expected = _expected(vectors[f"mean{place}"], vectors[f"self_influence{place}"])
    page = _ask(api, job_id, damping=damping).json()
    assert page["relative"]
    assert [row["score"] for row in page["data"]] == pytest.approx(expected, rel=1e-6)
    top = _ask(api, job_id, damping=damping, top_k=5).json()
    assert [row["score"] for row in top["data"]] == pytest.approx(sorted(expected, reverse=True)[:5], rel=1e-6)
    plain = api.client.get(f"/v1/jobs/{job_id}/scores", params={"damping": damping, "top_k": 5}).json()
    assert [row["id"] for row in plain["data"]] != [row["id"] for row in top["data"]]


def test_of_a_validation_row_and_of_all_of_them(api: Api) -> None:
    job_id, vectors = _job(api)
    expected = _expected(vectors["validation:0"], vectors["self_influence"])
    page = _ask(api, job_id, validation_id="q1").json()
    assert [row["score"] for row in page["data"]] == pytest.approx(expected, rel=1e-6)
    lines = _ask(api, job_id, vector="all", format="ndjson").text.splitlines()
    assert [json.loads(line)["score"] for line in lines] == pytest.approx(expected, rel=1e-6)


def test_a_page_goes_on_in_its_own_order_alone(api: Api) -> None:
    job_id, _ = _job(api)
    page = _ask(api, job_id, order="proponents", limit=10).json()
    following = _ask(api, job_id, order="proponents", limit=10, after=page["next_after"]).json()
    assert following["data"][0]["score"] <= page["data"][-1]["score"]
    plain = {"order": "proponents", "after": page["next_after"]}
    problem(api.client.get(f"/v1/jobs/{job_id}/scores", params=plain), 400, "bad_cursor")


@pytest.mark.parametrize("query", [{"train_id": "t1"}, {"vector": "self_influence"}, {"vector": "train_loss"}])
def test_it_goes_with_scores_of_train_rows(api: Api, query: dict[str, str]) -> None:
    job_id, _ = _job(api)
    problem(_ask(api, job_id, **query), 422, "invalid_input", "/query/relative")


def test_a_job_without_self_influence_says_what_to_ask_for(api: Api) -> None:
    job_id, _ = _job(api, self_influence=False)
    body = problem(_ask(api, job_id), 404, "not_found")
    assert "output.self_influence" in body["detail"]
