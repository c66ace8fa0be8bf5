"""A new question to a finished job, over HTTP and through a worker: on what is kept, to the bits of a whole job."""

from __future__ import annotations

import json
import shutil

import httpx
import pytest

from ascribe.client import succeeded
from ascribe.client.errors import Conflict, JobFailed
from ascribe.job import Job
from tests.e2e.conftest import MakeSpec, System

QUESTION = {"source": {"kind": "inline", "rows": [{"id": "q1", "text": "how do I undo a commit", "label": "coding"}]}}


NEW = {"source": {"kind": "inline", "rows": [{"id": "q1", "text": "who was asked this before?", "label": "trivia"}]}}


def _reused(job: Job) -> dict[str, tuple[int, int]]:
    assert job.result is not None
    return {kind: (use.reused, use.of) for kind, use in job.result.diagnostics.reused.items()}


def test_a_query_reuses_everything_and_scores_as_a_whole_job_does(system: System, make_spec: MakeSpec) -> None:
    first = system.client.create_and_wait(make_spec(seed=7))
    asked = succeeded(system.client.wait(system.client.query(first.id, NEW).id))
    assert first.result is not None
    train = first.result.train_rows
    assert _reused(asked) == {"gradients": (train, train + 1), "curvature": (24, 24), "solution": (24, 24)}
    assert asked.spec.query_of is not None
    assert asked.spec.query_of.job_id == first.id

    for kind in ("gradients", "curvature", "solution"):
        shutil.rmtree(system.stack.cache_dir / kind)
    whole = system.client.create_and_wait(make_spec(validation=NEW, seed=7))
    assert {kind: reused for kind, (reused, _) in _reused(whole).items()} == dict.fromkeys(_reused(whole), 0)
    assert system.client.scores(whole.id) == system.client.scores(asked.id)


def test_a_query_can_be_waited_for_in_the_request(system: System, make_spec: MakeSpec) -> None:
    first = system.client.create_and_wait(make_spec())
    url = f"{system.stack.url}/v1/jobs/{first.id}/queries"
    answer = httpx.post(url, json={"validation": QUESTION}, headers={"Prefer": "wait=30"}, timeout=40)
    assert answer.status_code == 200
    assert answer.json()["status"] == "succeeded"


def test_a_query_after_the_train_rows_changed_is_refused(system: System, make_spec: MakeSpec) -> None:
    path = system.data_root / "moving.jsonl"
    lines = (system.data_root / "topics/train.jsonl").read_text().splitlines()[:40]
    path.write_text("\n".join(lines) + "\n")
    first = system.client.create_and_wait(make_spec(train={"source": {"kind": "file", "path": "moving.jsonl"}}))
    path.write_text("\n".join([*lines[1:], json.dumps(json.loads(lines[0]) | {"text": "another text"})]) + "\n")
    with pytest.raises(JobFailed) as raised:
        succeeded(system.client.wait(system.client.query(first.id, QUESTION).id))
    error = raised.value.job.error
    assert error is not None
    assert (error.errors[0].pointer, error.errors[0].code) == ("/train", "changed")
    with pytest.raises(Conflict):
        system.client.query(raised.value.job.id, QUESTION)
