"""A worker, and a whole stack, told to stop in mid-job: the next attempt goes on from the cached shards at once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job, JobState
from tests.e2e.conftest import LEASE, MakeSpec, System

LONG = LEASE | {"ASCRIBE_LEASE_SECONDS": "60", "ASCRIBE_STALL_SECONDS": "60"}
"""So long that what goes on within seconds does not go on because a lease ran out."""


def _spec(make_spec: MakeSpec) -> dict[str, object]:
    return make_spec(train={"source": {"kind": "file", "path": "all/train.jsonl"}, "limit": 320})


def _went_on(ended: Job, first: Job) -> None:
    """It cost no attempt, and at most the shard in hand."""
    assert ended.status is JobState.SUCCEEDED, ended.error
    assert [attempt.outcome for attempt in ended.attempts] == ["handed_back", "succeeded"]
    assert ended.result is not None
    assert first.progress is not None
    assert ended.result.diagnostics.cache["train"].hit_rows >= first.progress.done - 32


def test_a_worker_that_is_restarted_costs_no_attempt_and_no_shard(system: System, make_spec: MakeSpec) -> None:
    for kind in ("gradients", "curvature", "solution"):
        shutil.rmtree(system.stack.cache_dir / kind, ignore_errors=True)
    job = system.client.create(_spec(make_spec))
    first = system.running_past(job, rows=64)
    began = time.monotonic()
    system.stack.restart_worker()
    print(f"ended and started anew in {time.monotonic() - began:.1f} s")
    _went_on(system.client.wait(job.id, timeout=180), first)


def test_a_stack_that_is_ended_in_mid_job_goes_on_under_the_next_one(
    system: System, make_spec: MakeSpec, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with Stack(system.data_root, state_dir=state, env=LONG) as stack, Client(stack.url) as client:
        job = client.create(_spec(make_spec))
        first = System(stack, client, system.data_root).running_past(job, rows=64)
        began = time.monotonic()
    print(f"the stack ended in {time.monotonic() - began:.1f} s")
    with Stack(system.data_root, state_dir=state, env=LONG) as stack, Client(stack.url) as client:
        _went_on(client.wait(job.id, timeout=180), first)
