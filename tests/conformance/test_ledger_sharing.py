"""Shared work of a running job: parts are laid out, taken, kept, finished, dropped, and gone with the attempt."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ascribe.ledger.base import Call, Claim, LeaseLost, Ledger, Part, Policy, Standing, WorkerInfo, WrongEnvironment
from ascribe.ledger.ids import new_job_id
from tests.conformance.conftest import MakeBench
from tests.support.ledger import (
    ERROR,
    LEASE_SECONDS,
    POLICY,
    Bench,
    claim,
    create,
    manifest,
    running,
    spec,
)

ENVIRONMENT = "env"


def offered(ledger: Ledger, *parts: str) -> Claim:
    owner = running(ledger)
    ledger.offer(owner, ENVIRONMENT, parts)
    return owner


def take(ledger: Ledger, owner: Claim, worker: str = "w2", *, as_owner: bool = False) -> Part:
    part = ledger.take(owner.job_id, worker, ENVIRONMENT, owner=owner if as_owner else None)
    assert part is not None
    return part


# -- taking ---------------------------------------------------------------------------------------------------


def test_parts_are_taken_in_the_order_offered_each_once(ledger: Ledger) -> None:
    owner = offered(ledger, "b", "a", "c")

    parts = [take(ledger, owner, f"w{i}", as_owner=i == 1) for i in range(3)]

    assert [part.name for part in parts] == ["b", "a", "c"]
    assert {(part.job_id, part.fence) for part in parts} == {(owner.job_id, owner.fence)}
    assert [part.worker for part in parts] == ["w0", "w1", "w2"]
    assert ledger.take(owner.job_id, "w9", ENVIRONMENT) is None
    assert ledger.take(owner.job_id, "w9", ENVIRONMENT, owner=owner) is None
    assert ledger.standing(owner) == Standing(open=0, taken=3, done=0)


def test_many_takers_never_get_the_same_part(ledger: Ledger) -> None:
    names = [f"{i:03}" for i in range(40)]
    owner = offered(ledger, *names)

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: take(ledger, owner, f"w{i}"), range(40)))

    assert sorted(part.name for part in parts) == names
    assert len({part.token for part in parts}) == 40


def test_more_parts_than_one_step_lays_out(ledger: Ledger) -> None:
    names = [f"{i:05}" for i in range(2500)]
    owner = offered(ledger, *names)
    assert ledger.standing(owner) == Standing(2500, 0, 0)
    assert [take(ledger, owner).name for _ in range(3)] == names[:3]


def test_there_is_nothing_to_take_of_a_job_that_offers_nothing(ledger: Ledger) -> None:
    queued, owner = create(ledger), running(ledger)
    for job_id in (queued, owner.job_id, new_job_id()):
        assert ledger.take(job_id, "w2", ENVIRONMENT) is None
    assert ledger.standing(owner) == Standing(0, 0, 0)
    assert ledger.finished_parts(owner) == []


def test_another_environment_is_told_so(ledger: Ledger) -> None:
    owner = offered(ledger, "a")
    with pytest.raises(WrongEnvironment):
        ledger.take(owner.job_id, "w2", "another")
    assert ledger.standing(owner) == Standing(1, 0, 0)


def test_an_offer_replaces_the_one_before(ledger: Ledger) -> None:
    owner = offered(ledger, "a", "b")
    old = take(ledger, owner)
    ledger.finish(take(ledger, owner))

    ledger.offer(owner, "another", ["a"])

    assert ledger.standing(owner) == Standing(1, 0, 0)
    assert ledger.finished_parts(owner) == []
    with pytest.raises(WrongEnvironment):
        take(ledger, owner)
    new = ledger.take(owner.job_id, "w3", "another")
    assert new is not None
    assert new.token > old.token
    with pytest.raises(LeaseLost):
        ledger.finish(old)
    ledger.offer(owner, "another", [])
    assert ledger.standing(owner) == Standing(0, 0, 0)


# -- keeping, finishing, dropping -----------------------------------------------------------------------------


def test_a_part_is_kept_as_long_as_its_holder_says_so(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(lease_seconds=0.6))
    owner = offered(bench.ledger, "a")
    part = take(bench.ledger, owner)
    for _ in range(2):
        bench.advance(0.4)
        bench.ledger.keep(part)
        bench.ledger.renew(owner)
    assert bench.ledger.take(owner.job_id, "w3", ENVIRONMENT) is None
    assert bench.ledger.standing(owner) == Standing(0, 1, 0)


@pytest.mark.parametrize("call", ["keep", "finish", "drop"])
def test_a_part_whose_lease_ran_out_is_taken_again_and_its_old_holder_refused(bench: Bench, call: str) -> None:
    ledger = bench.ledger
    owner = offered(ledger, "a")
    old = take(ledger, owner)
    bench.advance(LEASE_SECONDS)
    ledger.renew(owner)
    assert ledger.standing(owner) == Standing(1, 0, 0)

    new = take(ledger, owner, "w3")

    assert (new.name, new.token > old.token) == ("a", True)
    with pytest.raises(LeaseLost):
        getattr(ledger, call)(old)
    ledger.finish(new)
    assert ledger.finished_parts(owner) == [("a", "w3")]


def test_a_part_nobody_took_meanwhile_is_still_its_holders(bench: Bench) -> None:
    owner = offered(bench.ledger, "a")
    part = take(bench.ledger, owner)
    bench.advance(LEASE_SECONDS)
    bench.ledger.keep(part)
    assert bench.ledger.take(owner.job_id, "w3", ENVIRONMENT) is None


def test_finished_parts_are_listed_in_order_and_finishing_twice_is_no_error(ledger: Ledger) -> None:
    owner = offered(ledger, "a", "b", "c")
    a, b = take(ledger, owner, "w2"), take(ledger, owner, "w3")
    for part in (b, a, b):
        ledger.finish(part)

    assert ledger.standing(owner) == Standing(open=1, taken=0, done=2)
    assert ledger.finished_parts(owner) == [("b", "w3"), ("a", "w2")]
    assert ledger.finished_parts(owner, after=1) == [("a", "w2")]
    assert ledger.finished_parts(owner, after=2) == []
    for call in (ledger.keep, ledger.drop):
        with pytest.raises(LeaseLost):
            call(a)


def test_a_dropped_part_is_taken_next(ledger: Ledger) -> None:
    owner = offered(ledger, "a", "b", "c")
    first, second = take(ledger, owner), take(ledger, owner)

    ledger.drop(second)

    assert take(ledger, owner).name == second.name
    with pytest.raises(LeaseLost):
        ledger.finish(second)
    ledger.finish(first)


def test_a_part_that_helpers_keep_losing_is_left_to_the_owner(bench: Bench) -> None:
    ledger = bench.ledger
    owner = offered(ledger, "a", "b")
    for _ in range(POLICY.max_attempts - 1):
        ledger.drop(take(ledger, owner))
    take(ledger, owner)
    bench.advance(LEASE_SECONDS)
    ledger.renew(owner)

    assert take(ledger, owner).name == "b"
    assert ledger.take(owner.job_id, "w2", ENVIRONMENT) is None
    assert ledger.standing(owner) == Standing(open=1, taken=1, done=0)
    assert take(ledger, owner, as_owner=True).name == "a"


# -- the end of the attempt -----------------------------------------------------------------------------------


def lose(bench: Bench, _: Claim) -> None:
    bench.advance(LEASE_SECONDS)
    bench.ledger.reconcile()


def cancel(bench: Bench, owner: Claim) -> None:
    bench.ledger.request_cancel(owner.job_id)
    bench.ledger.cancelled(owner)


ENDS: dict[str, Callable[[Bench, Claim], object]] = {
    "commit": lambda bench, owner: bench.ledger.commit(owner, manifest()),
    "fail": lambda bench, owner: bench.ledger.fail(owner, ERROR),
    "cancelled": cancel,
    "hand_back": lambda bench, owner: bench.ledger.hand_back(owner),
    "lost": lose,
}


@pytest.mark.parametrize("end", ENDS)
def test_parts_go_with_the_attempt(bench: Bench, end: str) -> None:
    ledger = bench.ledger
    owner = offered(ledger, "a", "b", "c")
    held = take(ledger, owner)
    ledger.finish(take(ledger, owner))

    ENDS[end](bench, owner)

    for refused in (
        lambda: ledger.offer(owner, ENVIRONMENT, ["a"]),
        lambda: ledger.take(owner.job_id, "w", ENVIRONMENT, owner=owner),
        lambda: ledger.keep(held),
        lambda: ledger.finish(held),
        lambda: ledger.drop(held),
        lambda: ledger.standing(owner),
        lambda: ledger.finished_parts(owner),
    ):
        with pytest.raises(LeaseLost):
            refused()
    assert ledger.take(owner.job_id, "w2", ENVIRONMENT) is None
    if end in ("hand_back", "lost"):
        new = claim(ledger, owner.job_id, attempt=2)
        assert ledger.standing(new) == Standing(0, 0, 0)
        ledger.offer(new, ENVIRONMENT, ["a"])
        for call in (ledger.keep, ledger.finish, ledger.drop):
            with pytest.raises(LeaseLost):
                call(held)
        assert take(ledger, new).fence == new.fence


def test_no_work_is_shared_once_the_job_is_to_be_cancelled(ledger: Ledger) -> None:
    owner = offered(ledger, "a", "b")
    part = take(ledger, owner)
    ledger.request_cancel(owner.job_id)

    for call in (ledger.keep, ledger.finish, ledger.drop):
        with pytest.raises(LeaseLost):
            call(part)
    assert ledger.take(owner.job_id, "w3", ENVIRONMENT) is None
    assert ledger.take(owner.job_id, "w1", ENVIRONMENT, owner=owner) is None
    assert ledger.standing(owner) == Standing(1, 1, 0)


# -- calling helpers ------------------------------------------------------------------------------------------


def at_work(ledger: Ledger, *workers: str, queue: str = "cpu", environment: str = ENVIRONMENT) -> None:
    for worker in workers:
        info = WorkerInfo(worker, queue, {}, "sdpa", 4096, 256, "cpu", environment)
        ledger.register_worker(info, ttl_seconds=60)


def test_as_many_helpers_are_called_as_there_are_parts_and_workers_that_fit(ledger: Ledger) -> None:
    at_work(ledger, "w1", "w2", "w3")
    at_work(ledger, "w4", queue="gpu")
    at_work(ledger, "w5", environment="another")
    many = claim(ledger, create(ledger, spec(priority="high")))
    ledger.offer(many, ENVIRONMENT, ["a", "b", "c", "d"])
    few = offered(ledger, "a", "b")
    take(ledger, few)

    calls = ledger.reconcile().calls

    assert sorted(calls, key=lambda call: call.job_id) == sorted(
        [Call(many.job_id, "cpu", "high")] * 2 + [Call(few.job_id)], key=lambda call: call.job_id
    )
    assert ledger.reconcile().calls == ()


def test_nobody_is_called_to_work_alone(ledger: Ledger) -> None:
    at_work(ledger, "w1")
    offered(ledger, "a", "b")
    assert ledger.reconcile().calls == ()


def test_calls_are_made_again_while_parts_are_unfinished(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(ring_again_seconds=0.1))
    ledger = bench.ledger
    at_work(ledger, "w1", "w2")
    owner = offered(ledger, "a", "b")
    assert ledger.reconcile().calls == (Call(owner.job_id),)
    bench.advance(0.1)
    assert ledger.reconcile().calls == (Call(owner.job_id),)
    for _ in range(2):
        ledger.finish(take(ledger, owner))
    bench.advance(0.2)
    assert ledger.reconcile().calls == ()


def test_nobody_is_called_to_a_job_that_is_to_be_cancelled(ledger: Ledger) -> None:
    at_work(ledger, "w1", "w2")
    owner = offered(ledger, "a", "b")
    ledger.request_cancel(owner.job_id)
    assert ledger.reconcile().calls == ()
