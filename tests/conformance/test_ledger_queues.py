"""Which job a worker gets and when: handing back, backoff, queues, priorities, warm models. On both ledgers."""

from __future__ import annotations

from typing import Any

import pytest

from ascribe.job import JobState
from ascribe.ledger.base import MAX_BACKOFF_SECONDS, QUEUES, LeaseLost, Ledger, Policy, QueueCounts, Ring, model_key
from ascribe.ledger.ids import new_job_id
from tests.conformance.conftest import MakeBench
from tests.support.ledger import (
    ERROR,
    LEASE_SECONDS,
    POLICY,
    PROGRESS,
    Bench,
    MemoryBench,
    claim,
    create,
    manifest,
    rings,
    running,
    spec,
    succeed,
)

WARM = model_key(spec(base="bert").model)


# -- handing back ---------------------------------------------------------------------------------------------


def test_an_attempt_handed_back_is_queued_again_at_once(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.progress(owner, PROGRESS)
    ledger.stage(owner, "mean", [b"old"])

    ledger.hand_back(owner)
    ledger.hand_back(owner)

    job = ledger.get(owner.job_id)
    assert (job.status, job.attempt, job.progress) == (JobState.QUEUED, 2, None)
    assert [(a.number, a.outcome, a.ended_at is not None) for a in job.attempts] == [(1, "handed_back", True)]
    assert [event.type for event in ledger.events(owner.job_id)][-2:] == ["handed_back", "requeued"]
    assert rings(ledger) == [Ring(owner.job_id, 2)]
    new = claim(ledger, owner.job_id, attempt=2)
    assert new.fence > owner.fence
    ledger.hand_back(owner)  # as late as its retry may come: it is still true, and changes nothing
    assert ledger.get(owner.job_id).status == JobState.RUNNING
    with pytest.raises(LeaseLost):
        ledger.commit(owner, manifest())
    succeed(ledger, new, mean=b"1234")


def test_handing_back_does_not_count_as_losing(bench: Bench) -> None:
    job_id = create(bench.ledger)
    for attempt in range(1, 2 * POLICY.max_attempts):
        bench.ledger.hand_back(claim(bench.ledger, job_id, attempt))
    for attempt in range(2 * POLICY.max_attempts, 3 * POLICY.max_attempts):
        assert bench.ledger.get(job_id).status == JobState.QUEUED
        claim(bench.ledger, job_id, attempt)
        bench.advance(LEASE_SECONDS)
        bench.ledger.reconcile()

    job = bench.ledger.get(job_id)
    assert job.status == JobState.FAILED
    assert [a.outcome for a in job.attempts] == ["handed_back"] * 5 + ["lost"] * 3
    assert job.error is not None
    assert "(3)" in job.error.detail


def test_handing_back_what_is_to_be_cancelled_cancels_it(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.request_cancel(owner.job_id)
    for _ in range(2):
        ledger.hand_back(owner)
    job = ledger.get(owner.job_id)
    assert (job.status, job.attempts[0].outcome) == (JobState.CANCELLED, "cancelled")


def test_an_ended_attempt_is_not_handed_back(ledger: Ledger) -> None:
    done, failed = running(ledger), running(ledger)
    succeed(ledger, done)
    ledger.fail(failed, ERROR)
    for owner in (done, failed):
        with pytest.raises(LeaseLost):
            ledger.hand_back(owner)


# -- backoff --------------------------------------------------------------------------------------------------


def test_a_job_that_lost_its_worker_waits_longer_each_time(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(lease_seconds=0.05, max_attempts=3, retry_backoff_seconds=0.2))
    job_id = create(bench.ledger)
    for attempt, backoff in ((1, 0.2), (2, 0.4)):
        claim(bench.ledger, job_id, attempt)
        bench.advance(0.05)
        found = bench.ledger.reconcile()
        assert (found.requeued, found.rings) == ((job_id,), ())
        bench.advance(backoff - 0.15)
        assert rings(bench.ledger) == []
        bench.advance(0.15)
        assert rings(bench.ledger) == [Ring(job_id, attempt + 1)]


def test_no_backoff_is_longer_than_five_minutes() -> None:
    bench = MemoryBench(Policy(max_attempts=20, retry_backoff_seconds=5))
    job_id = create(bench.ledger)
    for attempt in range(1, 15):
        claim(bench.ledger, job_id, attempt)
        bench.advance(60)
        bench.ledger.reconcile()
        bench.advance(MAX_BACKOFF_SECONDS)
        assert Ring(job_id, attempt + 1) in rings(bench.ledger)


# -- queues and priorities ------------------------------------------------------------------------------------


def test_a_ring_says_where_it_goes(ledger: Ledger) -> None:
    fast = create(ledger, spec(queue="gpu", priority="high"))
    slow = create(ledger, spec(priority="low"))
    assert sorted(rings(ledger), key=lambda ring: ring.job_id) == [
        Ring(fast, 1, "gpu", "high"),
        Ring(slow, 1, "cpu", "low"),
    ]


def test_each_queue_is_counted(bench: Bench) -> None:
    ledger = bench.ledger
    assert ledger.counts().queues == dict.fromkeys(QUEUES, QueueCounts(0, 0, 0))
    on_gpu: dict[str, Any] = {"queue": "gpu"}
    claims = [claim(ledger, create(ledger, spec(**on_gpu))) for _ in range(3)]
    ledger.request_cancel(claims[0].job_id)
    ledger.commit(claims[1], manifest())
    create(ledger)
    waiting = create(ledger, spec(**on_gpu))
    bench.advance(LEASE_SECONDS / 2)
    create(ledger, spec(**on_gpu))

    queues = ledger.counts().queues

    assert [(queues[name].queued, queues[name].running) for name in QUEUES] == [(1, 0), (2, 2)]
    assert LEASE_SECONDS / 2 <= queues["gpu"].oldest_queued_seconds < 10 * LEASE_SECONDS
    claim(ledger, waiting)
    assert ledger.counts().queues["gpu"].oldest_queued_seconds < LEASE_SECONDS / 2


def test_a_job_says_which_one_it_asks_again(ledger: Ledger) -> None:
    first = running(ledger)
    ledger.fail(first, ERROR)
    again = ledger.create(new_job_id(), spec(), retry_of=first.job_id).job
    assert (again.retry_of, ledger.get(again.id).retry_of) == (first.job_id, first.job_id)
    assert ledger.get(first.job_id).retry_of is None


# -- warm models ----------------------------------------------------------------------------------------------


def claim_warm(ledger: Ledger, job_id: str, attempt: int = 1) -> str:
    claimed = ledger.claim(job_id, attempt, "w1", warm=WARM)
    assert claimed is not None
    return claimed.job_id


def test_a_worker_gets_a_job_for_the_model_it_has(ledger: Ledger) -> None:
    cold, warm, warm_too = create(ledger), create(ledger, spec("bert")), create(ledger, spec("bert"))
    assert {ring.job_id for ring in rings(ledger)} == {cold, warm, warm_too}

    claimed = ledger.claim(cold, 1, "w1", warm=WARM)

    assert claimed is not None
    assert (claimed.job_id, claimed.attempt, claimed.spec) == (warm, 1, spec("bert")), "the first to wait"
    assert [ledger.get(job_id).status for job_id in (cold, warm)] == [JobState.QUEUED, JobState.RUNNING]
    assert rings(ledger) == [Ring(cold, 1)], "at once, not after ring_again_seconds"
    assert ledger.claim(warm, 1, "w2") is None
    assert claim_warm(ledger, cold) == cold, "never passed over again"
    succeed(ledger, claimed, mean=b"1234")


def test_the_attempt_is_that_of_the_job_claimed(ledger: Ledger) -> None:
    warm = create(ledger, spec("bert"))
    ledger.hand_back(claim(ledger, warm))
    claimed = ledger.claim(create(ledger), 1, "w1", warm=WARM)
    assert claimed is not None
    assert (claimed.job_id, claimed.attempt, claimed.fence) == (warm, 2, 2)


@pytest.mark.parametrize("other", [{"queue": "gpu"}, {"priority": "high"}, {"priority": "low"}, {"base": "another"}])
def test_only_its_like_is_claimed_in_its_place(ledger: Ledger, other: dict[str, Any]) -> None:
    create(ledger, spec(**{"base": "bert", **other}))
    job_id = create(ledger)
    assert claim_warm(ledger, job_id) == job_id


def test_a_job_that_waits_out_its_backoff_is_not_claimed_in_place_of_another(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(lease_seconds=0.05, retry_backoff_seconds=0.2))
    ledger = bench.ledger
    warm = create(ledger, spec("bert"))
    claim(ledger, warm)
    bench.advance(0.05)
    assert ledger.reconcile().requeued == (warm,)
    first, second = create(ledger), create(ledger)
    assert claim_warm(ledger, first) == first
    bench.advance(0.2)
    assert claim_warm(ledger, second) == warm


@pytest.mark.parametrize("gone", ["claimed", "cancelled", "done"])
def test_a_job_that_does_not_wait_is_not_claimed_in_place_of_another(ledger: Ledger, gone: str) -> None:
    warm, job_id = create(ledger, spec("bert")), create(ledger)
    if gone == "cancelled":
        ledger.request_cancel(warm)
    else:
        owner = claim(ledger, warm)
        if gone == "done":
            succeed(ledger, owner)
    assert claim_warm(ledger, job_id) == job_id


def test_what_is_not_there_to_be_had_is_not_passed_over(ledger: Ledger) -> None:
    warm, job_id = create(ledger, spec("bert")), create(ledger)
    assert ledger.claim(job_id, 2, "w1", warm=WARM) is None
    ledger.request_cancel(job_id)
    assert ledger.claim(job_id, 1, "w1", warm=WARM) is None
    assert ledger.get(warm).status == JobState.QUEUED
