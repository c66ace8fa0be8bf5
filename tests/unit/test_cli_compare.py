"""``ascribe compare``: agreement of jobs, the rows they disagree on, and what cannot be compared."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.support.fake_api import JOB_ID, RESULT, FakeApi, job
from tests.unit.test_cli import run

OTHER_ID = JOB_ID[:-1] + "2"
TEXTS = ["git revert", "bad \x1b[31mlabel", "plain", "late"]


def page(*scores: float) -> dict[str, Any]:
    rows = [
        {"index": index, "id": f"r{index}", "label": "ai", "text": TEXTS[index], "score": score}
        for index, score in enumerate(scores)
    ]
    return {"object": "list", "data": rows, "has_more": False, "next_after": None}


def finished(job_id: str, **provenance: str) -> dict[str, Any]:
    result = copy.deepcopy(RESULT)
    result["provenance"] |= provenance
    return job("succeeded", id=job_id, result=result)


FIRST, SECOND = page(4.0, 3.0, 2.0, 1.0), page(4.0, 1.0, 2.0, 3.0)


def test_agreement_and_the_rows_in_dispute_as_json() -> None:
    api = FakeApi(finished(JOB_ID), finished(OTHER_ID), FIRST, SECOND)
    result = run(api, "compare", JOB_ID, OTHER_ID, "--top", "2", "--disputes", "1", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["pairs"] == [
        {"first": 0, "second": 1, "spearman": pytest.approx(0.2), "proponents": 0.5, "opponents": 0.5}
    ]
    assert document["disputes"] == [
        {"index": 1, "ranks": [2, 4], "scores": [3, 1], "id": "r1", "label": "ai", "text": TEXTS[1]}
    ]
    assert [each["id"] for each in document["jobs"]] == [JOB_ID, OTHER_ID]
    assert all(request.url.params["order"] == "row" for request in api.requests[2:])


def test_three_jobs_are_compared_two_by_two_with_their_texts() -> None:
    third = JOB_ID[:-1] + "3"
    api = FakeApi(*map(finished, (JOB_ID, OTHER_ID, third)), FIRST, SECOND, SECOND)
    result = run(api, "compare", JOB_ID, OTHER_ID, third, "--validation-id", "q1")
    lines = result.stdout.splitlines()
    assert "A\t" + JOB_ID + "\ttopics-noise\tgfim + schulz, relative 0.1" in lines
    assert [line.split("\t")[:2] for line in lines if line[:3] in ("A B", "A C", "B C")] == [
        ["A B", "0.2"],
        ["A C", "0.2"],
        ["B C", "1"],
    ]
    assert "2\t4\t4\tr1\tai\tbad [31mlabel" in lines
    assert all(request.url.params["validation_id"] == "q1" for request in api.requests[3:])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (finished(OTHER_ID, train_sha256="other"), "different train rows"),
        (job("failed", id=OTHER_ID), "is failed"),
    ],
)
def test_what_cannot_be_laid_side_by_side_is_refused(second: dict[str, Any], words: str) -> None:
    api = FakeApi(finished(JOB_ID), second)
    result = run(api, "compare", JOB_ID, OTHER_ID)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert len(api.requests) == 2  # no scores were read


def test_other_validation_rows_are_allowed_and_said() -> None:
    api = FakeApi(finished(JOB_ID), finished(OTHER_ID, validation_sha256="other"), FIRST, SECOND)
    result = run(api, "compare", JOB_ID, OTHER_ID)
    assert result.exit_code == 0
    assert "different validation rows" in result.stderr


def test_one_job_alone_is_a_wrong_command_line() -> None:
    assert run(FakeApi(finished(JOB_ID)), "compare", JOB_ID).exit_code == 2
