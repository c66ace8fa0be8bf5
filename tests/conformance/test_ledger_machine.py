"""Random histories of a ledger against a model: terminal is final, one commit, the fence and tokens only grow.

R11 of the chaos suite is this with more examples: ``ASCRIBE_CHAOS_EXAMPLES``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from ascribe.errors import Conflict, NotFound
from ascribe.job import JobState
from ascribe.ledger.base import Call, Claim, IdempotencyKey, Ring, WrongEnvironment
from ascribe.ledger.ids import new_job_id
from tests.support.ledger import ERROR, PROGRESS, MemoryBench, TimelessRedisBench, manifest
from tests.support.ledger_machine import (
    ENVIRONMENTS,
    LIVE,
    MODELS,
    PARTS,
    POLICY,
    SPECS,
    UNIT_SECONDS,
    Checked,
    check_keys,
    refused_unless,
)
from tests.support.ledger_model import LEASED, Model, PartModel, WorkModel

NAMES = st.lists(st.sampled_from(PARTS), unique=True)


class LedgerMachine(Checked):
    # -- callers ----------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.models) < 4)
    @rule(asked=st.sampled_from(SPECS))
    def create(self, asked: Any) -> None:
        job_id = new_job_id()
        assert not self.ledger.create(job_id, asked, IdempotencyKey(job_id, "body")).replayed
        self.models[job_id] = Model(asked, POLICY, self.now, self.now)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def request_cancel(self, data: st.DataObject) -> None:
        job_id, model = self.pick_job(data)
        self.ledger.request_cancel(job_id)
        if model.status == JobState.QUEUED:
            model.end(JobState.CANCELLED, self.now)
        elif model.status == JobState.RUNNING:
            model.status = JobState.CANCELLING

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        job_id, model = self.pick_job(data)
        if model.status.terminal:
            self.ledger.delete(job_id)
            del self.models[job_id]
        else:
            with pytest.raises(Conflict):
                self.ledger.delete(job_id)

    # -- workers ----------------------------------------------------------------------------------------------
    @precondition(lambda self: self.models)
    @rule(data=st.data(), right=st.sampled_from([True, True, True, False]), warm=st.sampled_from(["", *MODELS]))
    def claim(self, data: st.DataObject, right: bool, warm: str) -> None:
        job_id, model = self.pick_job(data)
        attempt = model.attempt if right else model.attempt + 1
        claim = self.ledger.claim(job_id, attempt, "w", warm=warm)
        assert (claim is not None) == (model.status == JobState.QUEUED and attempt == model.attempt)
        if claim is None:
            return
        rather = {} if model.passed or warm in ("", model.key()[2]) else self.waiting((*model.key()[:2], warm))
        if rather:
            first = min(other.waits_from for other in rather.values())
            assert rather[claim.job_id].waits_from == first
            model.passed, model.ring_due = True, self.now
            model = rather[claim.job_id]
        else:
            assert claim.job_id == job_id
        assert claim.fence > model.fence
        assert (claim.attempt, claim.spec) == (model.attempt, model.spec)
        model.begin(claim, self.now)
        self.claims.append(claim)

    def waiting(self, key: tuple[str, str, str]) -> dict[str, Model]:
        return {
            job_id: model
            for job_id, model in self.models.items()
            if model.status == JobState.QUEUED and model.key() == key and model.waits_from <= self.now
        }

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), with_progress=st.booleans())
    def renew(self, data: st.DataObject, with_progress: bool) -> None:
        claim, model = self.pick_claim(data)
        with refused_unless(model.owns(claim)):
            cancel = self.ledger.progress(claim, PROGRESS) if with_progress else self.ledger.renew(claim)
            assert cancel == (model.status == JobState.CANCELLING)
            model.lease_until = self.now + POLICY.lease_seconds

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), then_commit=st.booleans())
    def stage(self, data: st.DataObject, then_commit: bool) -> None:
        claim, model = self.pick_claim(data)
        with refused_unless(model.owns(claim)):
            self.ledger.stage(claim, "mean", [b"%d" % claim.fence])
        if then_commit:
            cancelled = model.status in (JobState.CANCELLING, JobState.CANCELLED)
            to = JobState.CANCELLED if cancelled else JobState.SUCCEEDED
            self.end(claim, model, to, lambda: self.ledger.commit(claim, manifest("mean")))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        claim, model = self.pick_claim(data)
        self.end(claim, model, JobState.FAILED, lambda: self.ledger.fail(claim, ERROR))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def cancelled(self, data: st.DataObject) -> None:
        claim, model = self.pick_claim(data)
        if model.owns(claim) and model.status == JobState.RUNNING:
            with pytest.raises(Conflict):
                self.ledger.cancelled(claim)
        else:
            self.end(claim, model, JobState.CANCELLED, lambda: self.ledger.cancelled(claim))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        claim, model = self.pick_claim(data)
        if model.owns(claim) and model.status == JobState.RUNNING:
            self.ledger.hand_back(claim)
            model.queue_again(self.now)
        elif model.owner is claim:
            self.end(claim, model, JobState.CANCELLED, lambda: self.ledger.hand_back(claim))
        # Of an attempt before the model does not remember how it ended.

    def end(self, claim: Claim, model: Model, to: JobState, call: Callable[[], None]) -> None:
        # Said again by the one who said it is no error, and changes nothing.
        with refused_unless(model.owner is claim and model.status in (*LEASED, to)):
            call()
            if model.status != to:
                model.end(to, self.now)

    # -- shared work ------------------------------------------------------------------------------------------
    @precondition(lambda self: self.claims)
    @rule(data=st.data(), names=NAMES, environment=st.sampled_from(ENVIRONMENTS))
    def offer(self, data: st.DataObject, names: list[str], environment: str) -> None:
        claim, model = self.pick_claim(data)
        with refused_unless(model.owns(claim)):
            self.ledger.offer(claim, environment, names)
            model.work = WorkModel(environment, self.now, {name: PartModel() for name in names})

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), as_owner=st.booleans(), environment=st.sampled_from(ENVIRONMENTS))
    def take(self, data: st.DataObject, as_owner: bool, environment: str) -> None:
        claim, model = self.pick_claim(data)
        work = model.work if model.status == JobState.RUNNING else None
        if work is not None and work.environment != environment and (model.owns(claim) or not as_owner):
            with pytest.raises(WrongEnvironment):
                self.ledger.take(claim.job_id, "h", environment, owner=claim if as_owner else None)
            return
        with refused_unless(model.owns(claim) or not as_owner):
            part = self.ledger.take(claim.job_id, "h", environment, owner=claim if as_owner else None)
            opened = work.open(self.now) if work else {}
            takers = {name for name, one in opened.items() if as_owner or one.takes < POLICY.max_attempts}
            assert (part is None) == (not takers)
            if part is not None:
                assert part.name in takers
                assert part.fence == model.fence
                assert part.token > model.last_token
                taken = opened[part.name]
                taken.due, taken.takes = self.now + POLICY.lease_seconds, taken.takes + 1
                model.last_token = taken.token = part.token
                self.parts.append(part)

    @precondition(lambda self: self.parts)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        part, model = self.pick_part(data)
        with refused_unless(model.holds(part)):
            self.ledger.keep(part)
            model.part(part).due = self.now + POLICY.lease_seconds

    @precondition(lambda self: self.parts)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        part, model = self.pick_part(data)
        with refused_unless(model.holds(part) or model.finished(part)):
            self.ledger.finish(part)
            model.finish(part)

    @precondition(lambda self: self.parts)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        part, model = self.pick_part(data)
        with refused_unless(model.holds(part)):
            self.ledger.drop(part)
            model.part(part).due, model.part(part).token = 0, None

    # -- time -------------------------------------------------------------------------------------------------
    @rule(units=st.sampled_from([7, 7, 61, 61, 501]))
    def time_passes(self, units: int) -> None:
        self.bench.advance(units * UNIT_SECONDS)
        self.now += units * UNIT_SECONDS
        if gone := [job_id for job_id, model in self.models.items() if model.expired(self.now)]:
            for job_id in gone:
                del self.models[job_id]
                with pytest.raises(NotFound):
                    self.ledger.get(job_id)
            self.reconcile()

    @rule()
    def reconcile(self) -> None:
        late = {i: m for i, m in self.models.items() if m.status in LEASED and m.lease_until <= self.now}
        for model in late.values():
            model.lose(self.now)
        found = self.ledger.reconcile()
        assert sorted(found.requeued) == sorted(i for i, m in late.items() if m.status == JobState.QUEUED)
        assert sorted(found.failed) == sorted(i for i, m in late.items() if m.status == JobState.FAILED)
        rung = {i: m for i, m in self.models.items() if m.status == JobState.QUEUED and m.ring_due <= self.now}
        assert sorted(found.rings, key=lambda ring: ring.job_id) == [
            Ring(job_id, model.attempt, model.spec.queue, model.spec.priority) for job_id, model in sorted(rung.items())
        ]
        for model in rung.values():
            model.ring_due = self.now + POLICY.ring_again_seconds * 2 ** min(model.rings, 4)
            model.rings += 1
        calls = Counter(found.calls)
        for job_id, model in self.models.items():
            count = calls.pop(Call(job_id, model.spec.queue, model.spec.priority), 0)
            self.check_calls(count, model)
        assert not calls

    def check_calls(self, count: int, model: Model) -> None:
        work = model.work
        if model.status != JobState.RUNNING or work is None or not work.unfinished() or work.call_due > self.now:
            assert count == 0
            return
        opened = work.open(self.now).values()
        fresh = sum(part.takes < POLICY.max_attempts for part in opened)
        helpers = LIVE.get((model.spec.queue, work.environment), 0) - 1
        # A part that was taken too often is known to be so once a helper has asked for it.
        assert max(0, min(fresh, helpers)) <= count <= max(0, min(len(opened), helpers))
        work.call_due = self.now + POLICY.ring_again_seconds * 2 ** min(work.calls, 4)
        work.calls += 1


def run(machine: Callable[[], LedgerMachine]) -> None:
    steps = settings(
        max_examples=int(os.environ.get("ASCRIBE_CHAOS_EXAMPLES", "25")),
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=steps)  # type: ignore[arg-type]  # it takes any factory


def test_random_histories_in_memory() -> None:
    run(lambda: LedgerMachine(MemoryBench(POLICY), lambda _: None))


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield client
    client.close()


def test_random_histories_on_redis(redis_url: str, server: redis.Redis) -> None:
    def machine() -> LedgerMachine:
        bench = TimelessRedisBench(POLICY, redis_url, server)
        return LedgerMachine(bench, lambda models: check_keys(server, bench.prefix, models))

    run(machine)
