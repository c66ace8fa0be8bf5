"""The main job over HTTP, through Celery to a worker, and back through Redis."""

from __future__ import annotations

import json
import math

import pytest

from ascribe.client.errors import Invalid, JobFailed, NotFound
from ascribe.job import Job, JobState, Phase
from ascribe.spec import PAIRS
from ascribe.status import SolveStatus
from tests.e2e.conftest import MakeSpec, System


def _matrix(system: System, job: Job) -> list[float]:
    """All scores, validation row by validation row."""
    ids = [json.loads(line)["id"] for line in (system.data_root / "topics/validation.jsonl").read_text().splitlines()]
    return [row.score for identifier in ids for row in system.client.scores(job.id, validation_id=identifier)]


def test_schulz_says_how_accurate_it_was_and_equals_cholesky(system: System, make_spec: MakeSpec) -> None:
    schulz = system.client.create_and_wait(make_spec("gfim", "schulz"))
    cholesky = system.client.create_and_wait(make_spec("gfim", "cholesky"))
    assert schulz.result is not None
    diagnostics = schulz.result.diagnostics
    assert diagnostics.status is SolveStatus.CONVERGED
    assert 0 < diagnostics.worst_relative_residual <= 1e-6
    assert len(diagnostics.blocks) == 24
    assert all(block.damping for block in diagnostics.blocks)
    ours, exact = _matrix(system, schulz), _matrix(system, cholesky)
    assert len(ours) == schulz.result.train_rows * schulz.result.validation_rows > 1000
    assert math.dist(ours, exact) / math.hypot(*exact) < 1e-5


@pytest.mark.parametrize(("curvature", "solver"), [(c, s) for c, solvers in PAIRS.items() for s in solvers])
def test_every_pair_of_the_table_runs(system: System, make_spec: MakeSpec, curvature: str, solver: str) -> None:
    job = system.client.create_and_wait(make_spec(curvature, solver))
    rows = system.client.scores(job.id, order="opponents", top_k=5)
    assert [row.score for row in rows] == sorted(row.score for row in rows)
    texts = {line["id"]: line["text"] for line in _train_rows(system)}
    assert all(texts[row.id].startswith(row.text) for row in rows)


def _train_rows(system: System) -> list[dict[str, str]]:
    return [json.loads(line) for line in (system.data_root / "topics/train.jsonl").read_text().splitlines()]


def test_a_second_question_finds_the_gradients_and_a_dry_run_knows(system: System, make_spec: MakeSpec) -> None:
    system.client.create_and_wait(make_spec())
    inline = {"source": {"kind": "inline", "rows": [{"id": "q1", "text": "how do I undo a commit", "label": "coding"}]}}
    spec = make_spec("empirical_fisher", "datainf", validation=inline)
    before = system.client.validate(spec)
    job = system.client.create_and_wait(spec)
    assert job.result is not None
    train = job.result.diagnostics.cache["train"]
    assert train.hit_rows == train.rows == job.result.train_rows
    assert json.dumps(before).count(str(train.rows)) > 0
    by_query = system.client.scores(job.id, validation_id="q1", order="proponents", top_k=3)
    assert len(by_query) == 3


def test_the_report_is_one_page_that_says_how_it_went(system: System, make_spec: MakeSpec) -> None:
    job = system.client.create_and_wait(make_spec())
    page = system.client.report(job.id)
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "converged" in page
    assert system.client.summary(job.id).rows == job.result.train_rows  # type: ignore[union-attr]  # it succeeded


def test_one_key_makes_one_job(system: System, make_spec: MakeSpec) -> None:
    first = system.client.create(make_spec(), idempotency_key="once")
    again = system.client.create(make_spec(), idempotency_key="once")
    assert first.id == again.id
    with pytest.raises(Invalid) as raised:
        system.client.create(make_spec("gfim", "cholesky"), idempotency_key="once")
    assert raised.value.code == "idempotency_key_reused"
    system.client.wait(first.id)


def test_cancel_ends_a_running_job_within_a_batch(system: System, make_spec: MakeSpec) -> None:
    spec = make_spec(train={"source": {"kind": "file", "path": "all/train.jsonl"}}, seed=1)
    job = system.client.create(spec)
    seen: list[JobState] = []

    def cancel_once_it_runs(job: Job) -> None:
        seen.append(job.status)
        if job.progress is not None and job.progress.done and JobState.CANCELLING not in seen:
            seen.append(system.client.cancel(job.id).status)

    ended = system.client.wait(job.id, on_progress=cancel_once_it_runs, timeout=60)
    assert ended.status is JobState.CANCELLED
    # In the middle of its rows: one that is noticed only at the end would be cancelled too.
    assert ended.progress is not None
    assert ended.progress.phase is Phase.CACHING_GRADIENTS
    assert ended.progress.done < ended.progress.total
    with pytest.raises(NotFound):
        system.client.scores(job.id)
    system.client.delete(job.id)
    with pytest.raises(NotFound):
        system.client.get(job.id)


@pytest.mark.parametrize(
    ("row", "code", "pointer"),
    [
        ({"id": "x", "text": "hello", "label": "sports"}, "label_out_of_range", "/train/source/rows/1/label"),
        ({"id": "x", "text": "hello"}, "missing_label", "/train/source/rows/1/label"),
        ({"id": "x", "label": "ai"}, "missing_text", "/train/source/rows/1/text"),
        (None, "empty_dataset", "/train/source"),
    ],
)
def test_a_bad_file_fails_the_job_and_names_the_row(
    system: System, make_spec: MakeSpec, row: dict[str, str] | None, code: str, pointer: str
) -> None:
    rows = [] if row is None else [{"id": "a", "text": "fine", "label": "ai"}, row]
    (system.data_root / "bad.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    with pytest.raises(JobFailed) as raised:
        system.client.create_and_wait(make_spec(train={"source": {"kind": "file", "path": "bad.jsonl"}}))
    error = raised.value.job.error
    assert error is not None
    assert (error.errors[0].code, error.errors[0].pointer) == (code, pointer)
    assert "sports" not in error.model_dump_json()
