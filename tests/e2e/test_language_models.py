"""A language model's job over HTTP, through a worker: scores by row and by token, and a question more."""

from __future__ import annotations

import pytest

from ascribe.client import succeeded
from ascribe.client.errors import JobFailed
from tests.e2e.conftest import Spec, System
from tests.support.tiny import make_causal_lm, make_completions, write_rows

TRAIN = 90


@pytest.fixture(scope="module")
def spec(system: System) -> Spec:
    make_causal_lm(system.data_root / "lm")
    write_rows(system.data_root / "lm" / "train.jsonl", make_completions(TRAIN))
    return {
        "model": {"task": "causal-lm", "base": "lm/base", "adapter": "lm/adapter", "max_length": 64},
        "train": {"source": {"kind": "file", "path": "lm/train.jsonl"}},
        "validation": {"source": {"kind": "inline", "rows": make_completions(3, seed=2)}},
        "curvature": {"kind": "gfim"},
        "solver": {"kind": "auto"},
        "output": {"per_token": True},
    }


def test_a_row_is_found_by_what_it_taught_token_by_token(system: System, spec: Spec) -> None:
    job = system.client.create_and_wait(spec)
    assert job.result is not None
    tokens = system.client.scores(job.id, validation_id="r1", train_id="r7", order="row")
    (row,) = [found for found in system.client.scores(job.id, validation_id="r1", order="row") if found.id == "r7"]
    assert sum(token.score for token in tokens) == pytest.approx(row.score, rel=1e-3, abs=1e-4)
    assert [token.text for token in tokens] == make_completions(3, seed=2)[1]["completion"].split()
    # A train row asked about is its own strongest proponent.
    asked = {"source": {"kind": "inline", "rows": [make_completions(TRAIN)[7] | {"id": "again"}]}}
    again = succeeded(system.client.wait(system.client.query(job.id, asked).id))
    assert again.result is not None
    assert again.result.diagnostics.reused["gradients"].reused == TRAIN
    best = system.client.scores(again.id, validation_id="again", order="proponents", top_k=1)
    assert [found.id for found in best] == ["r7"]
    assert "Token by token" in system.client.report(again.id)


def test_a_row_with_nothing_to_learn_fails_the_job_and_is_named(system: System, spec: Spec) -> None:
    with pytest.raises(JobFailed) as raised:
        system.client.create_and_wait(spec | {"model": spec["model"] | {"max_length": 4}})
    assert raised.value.job.error is not None
    assert "nothing to learn from" in raised.value.job.error.detail
    assert raised.value.job.error.errors[0].pointer.endswith("/completion")
