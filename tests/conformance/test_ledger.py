"""One suite for every ledger: what base.py promises, on memory and on a real Valkey server."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ascribe.errors import Conflict, Expired, IdempotencyReused, InternalError, NotFound, NotReady, QueueFull
from ascribe.job import JobState
from ascribe.ledger.base import Claim, IdempotencyKey, JobFilter, LeaseLost, Ledger, Policy, Ring, WorkerInfo
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.values import MOST_DOUBLINGS, RUNG_AGAIN
from ascribe.view import SpecView
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

WORKER = WorkerInfo(
    worker="w1",
    queue="cpu",
    versions={"torch": "2.13"},
    attention="sdpa",
    token_budget=4096,
    shard_rows=256,
    device="cpu",
    environment="env",
)
LATE_WRITES: dict[str, Callable[[Ledger, Claim], object]] = {
    "renew": lambda ledger, old: ledger.renew(old),
    "progress": lambda ledger, old: ledger.progress(old, PROGRESS),
    "stage": lambda ledger, old: ledger.stage(old, "mean", [b"1234"]),
    "commit": lambda ledger, old: ledger.commit(old, manifest()),
    "fail": lambda ledger, old: ledger.fail(old, ERROR),
    "cancelled": lambda ledger, old: ledger.cancelled(old),
    "hand_back": lambda ledger, old: ledger.hand_back(old),
}

# -- create, get, list ----------------------------------------------------------------------------------------


def test_a_created_job_is_queued_and_can_be_read_back(ledger: Ledger) -> None:
    created = ledger.create(new_job_id(), spec(labels={"team": "support"}))

    assert not created.replayed
    assert created.job == ledger.get(created.job.id)
    assert created.job.status == JobState.QUEUED
    assert created.job.spec == SpecView.of(spec(labels={"team": "support"}))
    assert ledger.spec(created.job.id) == spec(labels={"team": "support"})
    assert (created.job.attempt, created.job.attempts, created.job.started_at) == (1, (), None)


def test_creating_the_same_id_again_is_the_same_call(ledger: Ledger) -> None:
    job_id = create(ledger)

    assert ledger.create(job_id, spec()).replayed
    assert rings(ledger) == [Ring(job_id, 1)]


@pytest.mark.parametrize("call", ["get", "spec", "events", "request_cancel", "delete"])
def test_an_unknown_id_is_not_found(ledger: Ledger, call: str) -> None:
    with pytest.raises(NotFound):
        getattr(ledger, call)(new_job_id())


def test_a_list_is_newest_first_and_goes_on_after_the_last_job_seen(ledger: Ledger) -> None:
    newest_first = [create(ledger) for _ in range(5)][::-1]

    first = ledger.list(JobFilter(), limit=2)
    second = ledger.list(JobFilter(), after=first.jobs[-1].id, limit=3)

    assert [job.id for job in first.jobs + second.jobs] == newest_first
    assert (first.has_more, second.has_more) == (True, False)
    assert ledger.list(JobFilter(), after=newest_first[-1]).jobs == ()


def test_a_list_longer_than_one_batch_is_complete(ledger: Ledger) -> None:
    newest_first = [create(ledger, spec(labels={"even": str(i % 2 == 0)})) for i in range(450)][::-1]

    page = ledger.list(JobFilter(labels={"even": "True"}), limit=300)

    assert [job.id for job in page.jobs] == newest_first[1::2]
    assert not page.has_more


def test_a_list_can_be_filtered(ledger: Ledger) -> None:
    plain = create(ledger)
    labelled = create(ledger, spec(labels={"team": "support", "run": "7"}))
    other = create(ledger, spec(base="bert"))
    claim(ledger, other)

    def ids(job_filter: JobFilter) -> list[str]:
        return [job.id for job in ledger.list(job_filter).jobs]

    assert ids(JobFilter(status=JobState.RUNNING)) == [other]
    assert ids(JobFilter(status=JobState.QUEUED)) == [labelled, plain]
    assert ids(JobFilter(model="bert")) == [other]
    assert ids(JobFilter(model="topics-lora")) == [other, labelled, plain]
    assert ids(JobFilter(labels={"team": "support"})) == [labelled]
    assert ids(JobFilter(labels={"team": "support", "run": "8"})) == []


def test_queries_of_a_job_are_found(ledger: Ledger) -> None:
    parent, _ = create(ledger), create(ledger)
    hashes = dict.fromkeys(("base_sha256", "adapter_sha256", "train_sha256"), "0" * 64)
    child = create(ledger, spec(query_of={"job_id": parent, **hashes}))
    assert [job.id for job in ledger.list(JobFilter(query_of=parent)).jobs] == [child]
    assert ledger.list(JobFilter(query_of=child)).jobs == ()
    asked = ledger.get(child).spec.query_of
    assert asked is not None
    assert asked.job_id == parent


def test_a_base_alone_is_kept_and_found(ledger: Ledger) -> None:
    alone = spec(model={"base": "bert"}, parameters={"select": "modules", "modules": ["classifier"]})
    job_id = create(ledger, alone)
    kept = ledger.get(job_id).spec
    assert (kept.model, kept.parameters) == (alone.model, alone.parameters)
    assert [job.id for job in ledger.list(JobFilter(model="bert")).jobs] == [job_id]
    assert ledger.list(JobFilter(model="topics-lora")).jobs == ()


def test_a_full_queue_takes_no_more_but_replays(make_bench: MakeBench) -> None:
    ledger = make_bench(Policy(max_queued_jobs=2)).ledger
    key = IdempotencyKey("k", "body")
    first, second = create(ledger, idempotency=key), create(ledger)

    with pytest.raises(QueueFull, match="max_queued_jobs"):
        create(ledger)
    assert ledger.create(new_job_id(), spec(), key).job.id == first
    claim(ledger, second)
    create(ledger)


# -- idempotency ----------------------------------------------------------------------------------------------
def test_a_key_tells_what_it_has_made(ledger: Ledger) -> None:
    key = IdempotencyKey("k", "body")
    assert ledger.replayed(key) is None
    job_id = create(ledger, idempotency=key)
    earlier = ledger.replayed(key)
    assert earlier is not None
    assert earlier.id == job_id
    with pytest.raises(IdempotencyReused):
        ledger.replayed(IdempotencyKey("k", "another body"))
    ledger.request_cancel(job_id)
    ledger.delete(job_id)
    assert ledger.replayed(key) is None


def test_the_same_key_and_body_make_one_job(ledger: Ledger) -> None:
    key = IdempotencyKey("k", "body")
    job_id = create(ledger, idempotency=key)

    again = ledger.create(new_job_id(), spec(), key)

    assert (again.job.id, again.replayed) == (job_id, True)
    assert rings(ledger) == [Ring(job_id, 1)]


def test_the_same_key_with_another_body_is_refused(ledger: Ledger) -> None:
    create(ledger, idempotency=IdempotencyKey("k", "body"))

    with pytest.raises(IdempotencyReused):
        create(ledger, idempotency=IdempotencyKey("k", "another body"))
    assert len(ledger.list(JobFilter()).jobs) == 1


def test_a_key_is_free_again_after_its_time_or_its_job(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(idempotency_ttl_seconds=0.1))
    first = create(bench.ledger, idempotency=IdempotencyKey("k", "body"))

    bench.advance(0.1)
    second = create(bench.ledger, idempotency=IdempotencyKey("k", "another body"))
    bench.ledger.request_cancel(second)
    bench.ledger.delete(second)
    third = create(bench.ledger, idempotency=IdempotencyKey("k", "a third"))

    assert len({first, second, third}) == 3


def test_a_key_does_not_outlive_the_record_of_its_job(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(record_ttl_seconds=0.1))
    first = create(bench.ledger, idempotency=IdempotencyKey("k", "body"))
    bench.ledger.request_cancel(first)
    bench.advance(0.1)

    assert create(bench.ledger, idempotency=IdempotencyKey("k", "another body")) != first


# -- claim and fence ------------------------------------------------------------------------------------------


def test_only_one_of_many_claims_is_granted(ledger: Ledger) -> None:
    job_id = create(ledger)

    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda worker: ledger.claim(job_id, 1, f"w{worker}"), range(8)))

    granted = [one for one in claims if one is not None]
    assert len(granted) == 1
    job = ledger.get(job_id)
    assert job.status == JobState.RUNNING
    assert [(a.number, a.worker, a.outcome) for a in job.attempts] == [(1, granted[0].worker, None)]
    assert job.started_at == job.attempts[0].started_at


def test_what_is_not_there_to_be_had_is_not_claimed(ledger: Ledger) -> None:
    job_id = create(ledger)

    assert ledger.claim(job_id, 2, "w1") is None
    assert ledger.claim(new_job_id(), 1, "w1") is None
    ledger.request_cancel(job_id)
    assert ledger.claim(job_id, 1, "w1") is None


def test_a_claim_carries_the_spec(ledger: Ledger) -> None:
    assert running(ledger).spec == spec()


@pytest.mark.parametrize("write", LATE_WRITES)
@pytest.mark.parametrize("claimed_again", [False, True])
def test_a_late_write_of_a_lost_attempt_is_refused(bench: Bench, write: str, claimed_again: bool) -> None:
    old = running(bench.ledger)
    bench.advance(LEASE_SECONDS)
    assert bench.ledger.reconcile().requeued == (old.job_id,)
    if claimed_again:
        new = claim(bench.ledger, old.job_id, attempt=2)
        assert new.fence > old.fence
    before = bench.ledger.get(old.job_id)

    with pytest.raises(LeaseLost):
        LATE_WRITES[write](bench.ledger, old)
    assert bench.ledger.get(old.job_id) == before


@pytest.mark.parametrize("write", LATE_WRITES)
def test_a_write_to_a_deleted_job_is_refused(ledger: Ledger, write: str) -> None:
    owner = running(ledger)
    ledger.fail(owner, ERROR)
    ledger.delete(owner.job_id)

    with pytest.raises(LeaseLost):
        LATE_WRITES[write](ledger, owner)


def test_renewing_keeps_the_lease(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(lease_seconds=0.6))
    owner = running(bench.ledger)
    for extend in (bench.ledger.renew, lambda one: bench.ledger.progress(one, PROGRESS)):
        bench.advance(0.4)
        assert extend(owner) is False
    bench.advance(0.4)

    assert bench.ledger.reconcile().requeued == ()


def test_progress_is_recorded_with_the_ledgers_time(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.progress(owner, PROGRESS)

    job = ledger.get(owner.job_id)
    assert job.progress is not None
    assert job.progress.model_copy(update={"updated_at": None}) == PROGRESS
    assert job.progress.updated_at is not None
    assert job.progress.updated_at >= job.created_at


# -- cancel ---------------------------------------------------------------------------------------------------


def test_cancelling_a_queued_job_ends_it(ledger: Ledger) -> None:
    job_id = create(ledger)

    job = ledger.request_cancel(job_id)

    assert job.status == JobState.CANCELLED
    assert job.finished_at is not None
    assert rings(ledger) == []
    assert ledger.request_cancel(job_id) == job


def test_cancelling_a_running_job_asks_its_worker(ledger: Ledger) -> None:
    owner = running(ledger)

    assert ledger.request_cancel(owner.job_id).status == JobState.CANCELLING
    assert ledger.request_cancel(owner.job_id).status == JobState.CANCELLING
    assert ledger.renew(owner) is True
    assert ledger.progress(owner, PROGRESS) is True
    ledger.cancelled(owner)

    job = ledger.get(owner.job_id)
    assert job.status == JobState.CANCELLED
    assert job.attempts[0].outcome == "cancelled"


def test_an_ended_job_is_not_cancelled(ledger: Ledger) -> None:
    done, failed = running(ledger), running(ledger)
    succeed(ledger, done)
    ledger.fail(failed, ERROR)

    assert ledger.request_cancel(done.job_id).status == JobState.SUCCEEDED
    assert ledger.request_cancel(failed.job_id).status == JobState.FAILED


def test_a_commit_that_comes_after_the_cancel_is_thrown_away(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.stage(owner, "mean", [b"1234"])
    ledger.request_cancel(owner.job_id)

    ledger.commit(owner, manifest("mean"))

    job = ledger.get(owner.job_id)
    assert (job.status, job.result) == (JobState.CANCELLED, None)
    with pytest.raises(NotReady, match="cancelled"):
        ledger.read(owner.job_id, "mean")


def test_a_job_nobody_cancelled_does_not_end_as_cancelled(ledger: Ledger) -> None:
    owner = running(ledger)

    with pytest.raises(Conflict):
        ledger.cancelled(owner)
    assert ledger.get(owner.job_id).status == JobState.RUNNING


def test_a_cancelling_job_whose_worker_dies_is_cancelled(bench: Bench) -> None:
    owner = running(bench.ledger)
    bench.ledger.request_cancel(owner.job_id)
    bench.advance(LEASE_SECONDS)

    found = bench.ledger.reconcile()

    assert (found.rings, found.requeued, found.failed) == ((), (), ())
    job = bench.ledger.get(owner.job_id)
    assert job.status == JobState.CANCELLED
    assert job.attempts[0].outcome == "lost"
    with pytest.raises(LeaseLost):
        bench.ledger.cancelled(owner)


# -- results --------------------------------------------------------------------------------------------------


def test_a_result_is_visible_all_at_once(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.stage(owner, "mean", [b"12", b"34"])
    ledger.stage(owner, "train_rows", [b"rows"])
    with pytest.raises(NotReady, match="running"):
        ledger.read(owner.job_id, "mean")
    assert ledger.get(owner.job_id).result is None

    ledger.commit(owner, manifest("mean"))

    job = ledger.get(owner.job_id)
    assert (job.status, job.result) == (JobState.SUCCEEDED, manifest("mean"))
    assert (job.attempts[0].outcome, job.attempts[0].ended_at) == ("succeeded", job.finished_at)
    assert b"".join(ledger.read(owner.job_id, "mean")) == b"1234"
    assert b"".join(ledger.read(owner.job_id, "train_rows")) == b"rows"
    with pytest.raises(NotFound):
        ledger.read(owner.job_id, "validation:0")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (5 << 20) // 2 + 3])
def test_a_vector_of_any_size_comes_back_in_chunks_of_a_mebibyte(ledger: Ledger, size: int) -> None:
    data = secrets.token_bytes(size)
    owner = running(ledger)
    succeed(ledger, owner, mean=data)

    chunks = list(ledger.read(owner.job_id, "mean"))

    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= 1 << 20 for chunk in chunks)


@pytest.mark.parametrize(("offset", "length"), [(0, 4), (4, 8), ((1 << 20) - 4, 8), ((2 << 20) - 4, 100), (9 << 20, 4)])
def test_the_same_range_of_many_vectors(ledger: Ledger, offset: int, length: int) -> None:
    vectors = {f"validation:{i}": secrets.token_bytes((2 << 20) + 4 * (i == 1)) for i in range(3)}
    vectors |= {f"validation:{i}": secrets.token_bytes(12) for i in range(3, 70)}
    owner = running(ledger)
    succeed(ledger, owner, **vectors)

    found = ledger.read_range(owner.job_id, list(vectors), offset, length)

    assert list(found) == [data[offset : offset + length] for data in vectors.values()]


def test_a_range_is_refused_as_a_whole_vector_is(ledger: Ledger) -> None:
    owner = running(ledger)
    with pytest.raises(NotReady):
        ledger.read_range(owner.job_id, ["mean"], 0, 4)
    succeed(ledger, owner, mean=b"1234")
    with pytest.raises(NotFound):
        ledger.read_range(owner.job_id, ["mean", "validation:0"], 0, 4)
    with pytest.raises(NotFound):
        ledger.read_range(new_job_id(), ["mean"], 0, 4)


def test_staging_again_starts_over(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.stage(owner, "mean", [bytes(3 << 20)])
    succeed(ledger, owner, mean=b"1234")

    assert b"".join(ledger.read(owner.job_id, "mean")) == b"1234"


def test_a_manifest_cannot_promise_what_is_not_staged(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.stage(owner, "mean", [b"1234"])

    with pytest.raises(InternalError):
        ledger.commit(owner, manifest("mean", "validation:0"))
    assert ledger.get(owner.job_id).status == JobState.RUNNING


def test_what_a_lost_attempt_staged_is_gone(bench: Bench) -> None:
    old = running(bench.ledger)
    bench.ledger.stage(old, "mean", [b"old"])
    bench.advance(LEASE_SECONDS)
    bench.ledger.reconcile()
    new = claim(bench.ledger, old.job_id, attempt=2)

    with pytest.raises(InternalError):
        bench.ledger.commit(new, manifest("mean"))


def test_a_failed_job_says_so(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.stage(owner, "mean", [b"1234"])
    ledger.fail(owner, ERROR)

    job = ledger.get(owner.job_id)
    assert (job.status, job.error, job.attempts[0].outcome) == (JobState.FAILED, ERROR, "failed")
    with pytest.raises(NotReady, match="failed"):
        ledger.read(owner.job_id, "mean")


def test_ending_twice_in_the_same_way_is_no_error_and_in_another_is(ledger: Ledger) -> None:
    done, failed, cancelled = running(ledger), running(ledger), running(ledger)
    ledger.request_cancel(cancelled.job_id)
    for _ in range(2):
        ledger.commit(done, manifest())
        ledger.fail(failed, ERROR)
        ledger.cancelled(cancelled)

    with pytest.raises(LeaseLost):
        ledger.fail(done, ERROR)
    with pytest.raises(LeaseLost):
        ledger.commit(failed, manifest())
    assert ledger.get(done.job_id).status == JobState.SUCCEEDED


def test_scores_expire_before_the_record(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(result_ttl_seconds=0.4, record_ttl_seconds=0.8))
    owner = running(bench.ledger)
    succeed(bench.ledger, owner, mean=b"1234")
    assert b"".join(bench.ledger.read(owner.job_id, "mean")) == b"1234"

    bench.advance(0.4)
    with pytest.raises(Expired):
        bench.ledger.read(owner.job_id, "mean")
    assert bench.ledger.get(owner.job_id).result is not None

    bench.advance(0.4)
    bench.ledger.reconcile()
    with pytest.raises(NotFound):
        bench.ledger.read(owner.job_id, "mean")
    with pytest.raises(NotFound):
        bench.ledger.get(owner.job_id)
    assert bench.ledger.list(JobFilter()).jobs == ()


def test_a_job_that_has_not_ended_does_not_expire(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(result_ttl_seconds=0.05, record_ttl_seconds=0.05))
    queued, owner = create(bench.ledger), running(bench.ledger)

    bench.advance(0.1)

    assert bench.ledger.get(queued).status == JobState.QUEUED
    assert bench.ledger.get(owner.job_id).status == JobState.RUNNING


def test_deleting_removes_record_and_scores(ledger: Ledger) -> None:
    owner, queued = running(ledger), create(ledger)
    for job_id in (owner.job_id, queued):
        with pytest.raises(Conflict):
            ledger.delete(job_id)
    succeed(ledger, owner, mean=b"1234")

    ledger.delete(owner.job_id)

    with pytest.raises(NotFound):
        ledger.get(owner.job_id)
    with pytest.raises(NotFound):
        ledger.read(owner.job_id, "mean")
    assert [job.id for job in ledger.list(JobFilter()).jobs] == [queued]


def test_a_result_deleted_while_it_is_read_ends_the_reading(ledger: Ledger, bench: Bench) -> None:
    if isinstance(bench, MemoryBench):
        pytest.skip("memory hands out what it has")
    owner = running(ledger)
    succeed(ledger, owner, mean=bytes(2 << 20))
    chunks = ledger.read(owner.job_id, "mean")
    next(chunks)
    ledger.delete(owner.job_id)

    with pytest.raises(NotFound):
        next(chunks)


# -- upkeep ---------------------------------------------------------------------------------------------------


def test_a_turn_is_taken_by_one_caller_in_its_time(bench: Bench) -> None:
    assert bench.ledger.take_turn("sweep", 0.2)
    assert not bench.ledger.take_turn("sweep", 0.2)
    assert bench.ledger.take_turn("another", 0.2)
    bench.advance(0.2)
    assert bench.ledger.take_turn("sweep", 0.2)


def test_a_job_is_rung_once_and_again_when_nobody_claims_it(bench: Bench) -> None:
    jobs = [create(bench.ledger) for _ in range(3)]
    once = [Ring(job_id, 1) for job_id in jobs]

    assert rings(bench.ledger) == once
    assert rings(bench.ledger) == []
    claim(bench.ledger, jobs[0])
    bench.ledger.request_cancel(jobs[1])
    bench.advance(POLICY.ring_again_seconds)
    assert Ring(jobs[2], 1) in rings(bench.ledger)


def test_rings_of_a_job_that_waits_long_get_rarer(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(ring_again_seconds=0.05))
    create(bench.ledger)

    counts = []
    for _ in range(8):
        counts.append(len(rings(bench.ledger)))
        bench.advance(0.05)

    assert counts[:2] == [1, 1]
    assert sum(counts) <= 5


def test_only_the_first_of_a_long_queue_are_rung_again(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(ring_again_seconds=0.2))
    jobs = [create(bench.ledger) for _ in range(RUNG_AGAIN + 3)]
    assert [ring.job_id for ring in rings(bench.ledger)] == jobs
    bench.advance(0.2)
    assert [ring.job_id for ring in rings(bench.ledger)] == jobs[:RUNG_AGAIN]
    for job_id in jobs[:RUNG_AGAIN]:
        claim(bench.ledger, job_id)
    bench.advance(0.2 * 2**MOST_DOUBLINGS)
    assert [ring.job_id for ring in rings(bench.ledger)] == jobs[RUNG_AGAIN:]


def test_an_expired_lease_queues_the_job_again(bench: Bench) -> None:
    old = running(bench.ledger)
    bench.ledger.progress(old, PROGRESS)
    bench.advance(LEASE_SECONDS)

    found = bench.ledger.reconcile()

    assert (found.requeued, found.rings) == ((old.job_id,), (Ring(old.job_id, 2),))
    job = bench.ledger.get(old.job_id)
    assert (job.status, job.attempt, job.progress) == (JobState.QUEUED, 2, None)
    assert [(a.number, a.outcome) for a in job.attempts] == [(1, "lost")]
    assert bench.ledger.claim(old.job_id, 1, "w2") is None
    assert claim(bench.ledger, old.job_id, attempt=2).fence > old.fence


def test_a_worker_that_was_seen_to_die_is_not_waited_for(ledger: Ledger) -> None:
    mourned, other = running(ledger), running(ledger)
    cancelling = running(ledger)
    ledger.request_cancel(cancelling.job_id)
    for job_id in (mourned.job_id, cancelling.job_id):
        ledger.mourn(job_id, 1, "w1")
    ledger.mourn(other.job_id, 1, "w2")
    ledger.mourn(other.job_id, 2, "w1")
    ledger.mourn(create(ledger), 1, "w1")

    found = ledger.reconcile()

    assert found.requeued == (mourned.job_id,)
    assert [attempt.outcome for attempt in ledger.get(mourned.job_id).attempts] == ["lost"]
    assert ledger.get(cancelling.job_id).status == JobState.CANCELLED
    assert ledger.get(other.job_id).status == JobState.RUNNING


def test_a_late_word_of_a_death_harms_no_later_attempt(ledger: Ledger) -> None:
    ledger.hand_back(first := running(ledger))
    claim(ledger, first.job_id, 2)
    ledger.mourn(first.job_id, 1, "w1")
    assert ledger.reconcile().requeued == ()
    ledger.mourn(new_job_id(), 1, "w1")


def test_a_job_that_loses_every_worker_fails(bench: Bench) -> None:
    job_id = create(bench.ledger)
    for attempt in range(1, POLICY.max_attempts + 1):
        claim(bench.ledger, job_id, attempt)
        bench.advance(LEASE_SECONDS)
        found = bench.ledger.reconcile()

    assert (found.failed, found.requeued, found.rings) == ((job_id,), (), ())
    job = bench.ledger.get(job_id)
    assert job.status == JobState.FAILED
    assert [a.outcome for a in job.attempts] == ["lost"] * 3
    assert job.error is not None
    assert job.error.code == "worker_lost"
    assert "(3)" in job.error.detail
    assert "memory" in job.error.detail


# -- workers and hints ----------------------------------------------------------------------------------------


def test_a_worker_is_known_until_it_stops_saying_so(bench: Bench) -> None:
    bench.ledger.register_worker(WORKER, ttl_seconds=0.3)
    bench.ledger.register_worker(WORKER, ttl_seconds=0.3)

    assert list(bench.ledger.workers()) == [WORKER]
    bench.advance(0.3)
    assert list(bench.ledger.workers()) == []


def test_announced_gradients_are_known(ledger: Ledger) -> None:
    assert ledger.announced_gradients("f") is None
    ledger.announce_gradients("f", 128)
    assert ledger.announced_gradients("f") == 128


def test_ping_answers(ledger: Ledger) -> None:
    ledger.ping()
