"""``kill -9`` of the worker in mid-job: the next attempt goes on from the cached shards, to the same bits."""

from __future__ import annotations

import shutil

from ascribe.job import JobState
from tests.e2e.conftest import MakeSpec, System


def _forget_everything(system: System) -> None:
    """Gradients, curvature and solutions: what is compared must have been computed twice."""
    for kind in ("gradients", "curvature", "solution"):
        shutil.rmtree(system.stack.cache_dir / kind, ignore_errors=True)


def test_a_killed_workers_job_is_finished_by_the_next_attempt_bit_for_bit(system: System, make_spec: MakeSpec) -> None:
    spec = make_spec(
        train={"source": {"kind": "file", "path": "all/train.jsonl"}, "limit": 600}, output={"self_influence": True}
    )
    _forget_everything(system)
    whole = system.client.create_and_wait(spec, timeout=120)
    expected = system.client.scores(whole.id)
    expected_self = system.client.scores(whole.id, vector="self_influence")

    _forget_everything(system)
    job = system.client.create(spec)
    system.running_past(job, rows=96)
    system.stack.kill_worker()
    system.stack.restart_worker()
    ended = system.client.wait(job.id, timeout=180)

    assert ended.status is JobState.SUCCEEDED
    assert ended.attempt == 2
    assert [attempt.outcome for attempt in ended.attempts] == ["lost", "succeeded"]
    assert ended.result is not None
    # At most the shard in hand was lost.
    assert ended.result.diagnostics.cache["train"].hit_rows >= 64
    assert system.client.scores(job.id) == expected
    assert system.client.scores(job.id, vector="self_influence") == expected_self
