"""Selections: whole rows of the source, the best first, and only of the rows that were scored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ascribe.ledger.ids import new_job_id
from ascribe.settings import Settings
from ascribe.sources.rows import Labels, read_rows
from ascribe.spec import JobSpec
from tests.api.conftest import TRAIN_ROWS, Api, problem
from tests.support.handmade import LABELS, manifest, scores_of, spec_body, stage, train_rows


def _finished(api: Api, **fields: Any) -> tuple[str, list[float]]:
    """A job that scored the rows of the source as they are now."""
    spec = JobSpec.model_validate(spec_body(**fields))
    job_id = api.ledger.create(new_job_id(), spec).job.id
    claim = api.ledger.claim(job_id, 1, "w")
    assert claim is not None
    rows = read_rows(Settings(data_root=api.root), spec.train, "/train", Labels(len(LABELS), LABELS))
    infos = [row for row in train_rows(TRAIN_ROWS) if row.id in rows.ids]
    vectors = {name: scores_of(len(infos), seed) for seed, name in enumerate(("mean", "validation:0", "train_loss"))}
    stage(api.ledger, claim, vectors, infos, train_rows(1))
    done = manifest(spec, vectors, infos)
    provenance = done.provenance.model_copy(update={"train_sha256": rows.sha256})
    api.ledger.commit(claim, done.model_copy(update={"provenance": provenance}))
    return job_id, vectors["mean"]


@pytest.fixture
def job(api: Api) -> tuple[str, list[float]]:
    return _finished(api)


def _ask(api: Api, job_id: str, accept: str = "application/x-ndjson", **query: Any) -> Any:
    return api.client.get(f"/v1/jobs/{job_id}/selection", params=query, headers={"Accept": accept})


def _rows(api: Api, job_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = _ask(api, job_id, **query)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_best_rows_are_whole_and_ranked(api: Api, job: tuple[str, list[float]]) -> None:
    job_id, scores = job
    order = sorted(range(TRAIN_ROWS), key=lambda row: -scores[row])[:6]
    source = [json.loads(line) for line in (api.root / "topics/train.jsonl").read_text().splitlines()]
    assert _rows(api, job_id, fraction=0.2) == [
        {**source[row], "score": scores[row], "rank": rank} for rank, row in enumerate(order, start=1)
    ]
    worst = _rows(api, job_id, count=2, order="opponents")
    assert [row["score"] for row in worst] == sorted(scores)[:2]


def test_what_was_selected_can_be_submitted_again(api: Api, job: tuple[str, list[float]]) -> None:
    rows = [{k: row[k] for k in ("id", "text", "label")} for row in _rows(api, job[0], count=5)]
    assert api.post(train={"source": {"kind": "inline", "rows": rows}}).status_code == 202


def test_labels_are_as_they_came(api: Api) -> None:
    path = api.root / "topics" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    numbered = {row["id"]: LABELS.index(row["label"]) for row in rows}
    path.write_text("".join(json.dumps(row | {"label": numbered[row["id"]]}) + "\n" for row in rows))
    job_id, _ = _finished(api)
    assert {row["id"]: row["label"] for row in _rows(api, job_id, fraction=1)} == numbered


@pytest.mark.parametrize("quota", ["none", "proportional", "balanced"])
def test_more_rows_than_there_are_is_all_of_them(api: Api, job: tuple[str, list[float]], quota: str) -> None:
    assert len(_rows(api, job[0], count="1" + 400 * "0", quota=quota)) == TRAIN_ROWS


def test_the_summary_counts_by_label(api: Api, job: tuple[str, list[float]]) -> None:
    body = _ask(api, job[0], "application/json", count=9, quota="balanced").json()
    assert (body["rows"], body["selected"], body["duplicates"]) == (TRAIN_ROWS, 9, 0)
    assert body["labels"] == [{"label": label, "rows": 10, "selected": 3} for label in sorted(LABELS)]
    assert body["highest_score"] == max(job[1])


def test_of_equal_rows_the_better_one_is_taken(api: Api) -> None:
    path = api.root / "topics" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3] = rows[0] | {"id": rows[3]["id"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job_id, scores = _finished(api)
    better = max((0, 3), key=lambda row: (scores[row], -row))
    ids = [row["id"] for row in _rows(api, job_id, fraction=1)]
    assert len(ids) == TRAIN_ROWS - 1
    assert f"t{better}" in ids
    assert len(_rows(api, job_id, fraction=1, duplicates="keep")) == TRAIN_ROWS
    assert _ask(api, job_id, "application/json", fraction=1).json()["duplicates"] == 1


def test_rows_that_changed_since_are_not_selected_from(api: Api, job: tuple[str, list[float]]) -> None:
    path = api.root / "topics" / "train.jsonl"
    path.write_text(path.read_text().replace("what is", "where is", 1))
    problem(_ask(api, job[0], count=1), 409, "conflict")
    path.unlink()
    problem(_ask(api, job[0], count=1), 422, "invalid_input", "/train/source/path")


@pytest.mark.parametrize("change", [{"t1": "other"}, {"t1": "t2", "t2": "t1"}])
def test_ids_that_changed_since_are_not_taken_for_the_rows_they_name(
    api: Api, job: tuple[str, list[float]], change: dict[str, str]
) -> None:
    path = api.root / "topics" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"id": change.get(row["id"], row["id"])}) + "\n" for row in rows))
    problem(_ask(api, job[0], count=1), 409, "conflict")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({}, "/query/fraction"),
        ({"fraction": 0.1, "count": 3}, "/query/fraction"),
        ({"fraction": 0}, "/query/fraction"),
        ({"fraction": 1.5}, "/query/fraction"),
        ({"fraction": "nan"}, "/query/fraction"),
        ({"count": 0}, "/query/count"),
        ({"count": 3, "quota": "fair"}, "/query/quota"),
        ({"count": 3, "order": "row"}, "/query/order"),
    ],
)
def test_what_is_wrong_is_pointed_at(
    api: Api, job: tuple[str, list[float]], query: dict[str, Any], pointer: str
) -> None:
    problem(_ask(api, job[0], **query), 422, "invalid_input", pointer)


def test_what_is_not_there(api: Api, job: tuple[str, list[float]]) -> None:
    problem(_ask(api, api.submit(), count=1), 404, "not_ready")
    problem(_ask(api, job[0], count=1, validation_id="nobody"), 404, "not_found")
    problem(_ask(api, job[0], accept="text/csv", count=1), 406, "not_acceptable")


def test_it_is_sent_once(api: Api, job: tuple[str, list[float]]) -> None:
    answer = _ask(api, job[0], count=1)
    again = api.client.get(
        f"/v1/jobs/{job[0]}/selection",
        params={"count": 1},
        headers={"Accept": "application/x-ndjson", "If-None-Match": answer.headers["ETag"]},
    )
    assert again.status_code == 304
