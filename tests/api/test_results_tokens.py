"""Scores by token: of one token for every train row, and of one train row for every token."""

from __future__ import annotations

from typing import Any

import pytest

from ascribe.ledger.ids import new_job_id
from ascribe.result import RowInfo, TokenScores, token_rows, token_vector, validation_vector
from ascribe.spec import JobSpec
from tests.api.conftest import Api, problem
from tests.support.handmade import manifest, pack_rows, scores_of, spec_body, stage, train_rows

TOKENS = (" for", "ty", "-two")
ROWS = 30


@pytest.fixture
def job(api: Api) -> tuple[str, dict[str, list[float]]]:
    """A finished job whose one validation row has three tokens."""
    spec = JobSpec.model_validate(spec_body())
    job_id = api.ledger.create(new_job_id(), spec).job.id
    claim = api.ledger.claim(job_id, 1, "w")
    assert claim is not None
    names = ["mean", "train_loss", validation_vector(0), *(token_vector(0, token) for token in range(len(TOKENS)))]
    vectors = {name: scores_of(ROWS, seed) for seed, name in enumerate(names)}
    rows = [RowInfo(id=row.id, label=None, text=row.text) for row in train_rows(ROWS)]
    stage(api.ledger, claim, vectors, rows, [RowInfo(id="q1", label=None, text="The answer is ⏎  forty-two")])
    tokens = [RowInfo(id=str(place), label=None, text=text) for place, text in enumerate(TOKENS)]
    api.ledger.stage(claim, token_rows(0), [pack_rows(tokens)])
    labelled = manifest(spec, vectors, train_rows(ROWS))
    found = labelled.summary.proponents[0].model_copy(update={"label": None})
    example = TokenScores(validation_id="q1", row=found, tokens=TOKENS, scores=(2.0, -1.0, 0.0))
    api.ledger.commit(claim, labelled.model_copy(update={"tokens": (3,), "token_examples": (example,)}))
    return job_id, vectors


def _ask(api: Api, job_id: str, **query: Any) -> Any:
    return api.client.get(f"/v1/jobs/{job_id}/scores", params=query)


def test_one_token_ranks_the_train_rows(api: Api, job: tuple[str, dict[str, list[float]]]) -> None:
    job_id, vectors = job
    page = _ask(api, job_id, validation_id="q1", token=1, order="proponents", top_k=4).json()
    expected = sorted(vectors[token_vector(0, 1)], reverse=True)[:4]
    assert (page["vector"], page["validation_id"], page["token"]) == ("validation_token", "q1", 1)
    assert [row["score"] for row in page["data"]] == expected
    assert page["data"][0]["label"] is None


@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
def test_one_train_row_is_told_token_by_token(api: Api, job: tuple[str, dict[str, list[float]]], form: str) -> None:
    job_id, vectors = job
    answer = _ask(api, job_id, validation_id="q1", train_id="t7", format=form)
    expected = [vectors[token_vector(0, token)][7] for token in range(3)]
    if form == "json":
        page = answer.json()
        assert (page["vector"], page["train_id"], page["has_more"]) == ("tokens", "t7", False)
        assert [(row["text"], row["score"]) for row in page["data"]] == list(zip(TOKENS, expected, strict=True))
    else:
        assert len(answer.text.splitlines()) == (4 if form == "csv" else 3)
        assert all(repr(score) in answer.text for score in expected)


def test_what_is_not_there(api: Api, job: tuple[str, Any]) -> None:
    assert "3 tokens" in problem(_ask(api, job[0], validation_id="q1", token=3), 404, "not_found")["detail"]
    assert "validation row" in problem(_ask(api, job[0], validation_id="q2", token=0), 404, "not_found")["detail"]
    problem(_ask(api, job[0], token=0), 422, "invalid_input", "/query/token")


def test_the_report_shows_tokens_in_their_colours(api: Api, job: tuple[str, Any]) -> None:
    page = api.client.get(f"/v1/jobs/{job[0]}/report").text
    assert '<span class="proponent-4"> for</span><span class="opponent-2">ty</span><span>-two</span>' in page
    assert "None" not in page
