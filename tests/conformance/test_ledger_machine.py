"""Random histories of a ledger against a model of ten lines: terminal is final, one commit, the fence only grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ascribe.errors import Conflict
from ascribe.event import EventType
from ascribe.job import Job, JobState
from ascribe.ledger.base import Claim, LeaseLost, Policy, Pulse
from ascribe.ledger.redis import LAYOUT
from tests.support.ledger import ERROR, PROGRESS, Bench, MemoryBench, RedisBench, create, manifest

LEASE_SECONDS = 0.005
POLICY = Policy(lease_seconds=LEASE_SECONDS, ring_again_seconds=60, max_attempts=2, retry_backoff_seconds=0)
LEASED = (JobState.RUNNING, JobState.CANCELLING)
FINAL = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED)


@dataclass
class Model:
    status: JobState = JobState.QUEUED
    attempt: int = 1
    fence: int = 0
    owner: Claim | None = None
    """The last claim, unless it was taken away."""
    seen: Job | None = None
    final: Job | None = None


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self, bench: Bench, check_storage: Callable[[dict[str, Model]], None]) -> None:
        super().__init__()
        self.bench = bench
        self.ledger = bench.ledger
        self.check_storage = check_storage
        self.models: dict[str, Model] = {}
        self.claims: list[Claim] = []

    def pick_job(self, data: st.DataObject) -> tuple[str, Model]:
        job_id = data.draw(st.sampled_from(sorted(self.models)))
        return job_id, self.models[job_id]

    def pick_claim(self, data: st.DataObject) -> tuple[Claim, Model]:
        claim = self.claims[data.draw(st.integers(0, len(self.claims) - 1))]
        return claim, self.models.get(claim.job_id, Model())

    @precondition(lambda self: len(self.models) < 3)
    @rule()
    def create(self) -> None:
        self.models[create(self.ledger)] = Model()

    @precondition(lambda self: self.models)
    @rule(data=st.data(), attempt=st.integers(1, 2))
    def claim(self, data: st.DataObject, attempt: int) -> None:
        job_id, model = self.pick_job(data)
        claim = self.ledger.claim(job_id, attempt, "w")
        assert (claim is not None) == (model.status == JobState.QUEUED and attempt == model.attempt)
        if claim is not None:
            assert claim.fence > model.fence
            model.status, model.fence, model.owner = JobState.RUNNING, claim.fence, claim
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), with_progress=st.booleans())
    def renew(self, data: st.DataObject, with_progress: bool) -> None:
        claim, model = self.pick_claim(data)
        try:
            cancel = self.ledger.progress(claim, PROGRESS) if with_progress else self.ledger.renew(claim)
            assert self.owns(claim, model)
            assert cancel == (model.status == JobState.CANCELLING)
        except LeaseLost:
            assert not self.owns(claim, model)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), then_commit=st.booleans())
    def stage(self, data: st.DataObject, then_commit: bool) -> None:
        claim, model = self.pick_claim(data)
        try:
            self.ledger.stage(claim, "mean", [b"%d" % claim.fence])
            assert self.owns(claim, model)
        except LeaseLost:
            assert not self.owns(claim, model)
        if then_commit:
            self.commit(claim, model)

    def commit(self, claim: Claim, model: Model) -> None:
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
        if model.status == JobState.RUNNING and model.owner is claim:
            with pytest.raises(Conflict):
                self.ledger.cancelled(claim)
        else:
            self.end(claim, model, JobState.CANCELLED, lambda: self.ledger.cancelled(claim))

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def request_cancel(self, data: st.DataObject) -> None:
        job_id, model = self.pick_job(data)
        self.ledger.request_cancel(job_id)
        if model.status == JobState.QUEUED:
            model.status = JobState.CANCELLED
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

    @rule()
    def let_every_lease_expire(self) -> None:
        self.bench.advance(LEASE_SECONDS)
        found = self.ledger.reconcile()
        lost = {job_id: model for job_id, model in self.models.items() if model.status in LEASED}
        for model in lost.values():
            model.owner = None
            if model.status == JobState.CANCELLING:
                model.status = JobState.CANCELLED
            elif model.attempt == POLICY.max_attempts:
                model.status = JobState.FAILED
            else:
                model.status, model.attempt = JobState.QUEUED, model.attempt + 1
        assert sorted(found.requeued) == [i for i, m in sorted(lost.items()) if m.status == JobState.QUEUED]
        assert sorted(found.failed) == [i for i, m in sorted(lost.items()) if m.status == JobState.FAILED]

    @staticmethod
    def owns(claim: Claim, model: Model) -> bool:
        return model.owner is claim and model.status in LEASED

    def end(self, claim: Claim, model: Model, to: JobState, call: Callable[[], None]) -> None:
        try:
            call()
            # Said again by the one who said it is no error, and changes nothing.
            assert model.owner is claim
            assert model.status in (*LEASED, to)
            model.status = to
        except LeaseLost:
            assert model.owner is not claim or model.status not in (*LEASED, to)

    @invariant()
    def what_is_read_is_what_the_model_says(self) -> None:
        for job_id, model in self.models.items():
            job = self.ledger.get(job_id)
            assert (job.status, job.attempt) == (model.status, model.attempt)
            if model.seen is not None and model.seen != job:
                assert job.revision > model.seen.revision
            model.seen = job
            (pulse,) = self.ledger.pulses([job_id])
            events = self.ledger.events(job_id)
            assert pulse == Pulse(job.status, job.revision, events[-1].id)
            assert [event.id for event in events] == list(range(1, len(events) + 1))
            final = [event.type for event in events if event.type in FINAL]
            assert final == [step for step in FINAL if step.value == job.status]
            if model.status.terminal:
                model.final = model.final or job
                assert job == model.final
            if model.status == JobState.SUCCEEDED:
                assert b"".join(self.ledger.read(job_id, "mean")) == b"%d" % model.fence
        states = Counter(model.status for model in self.models.values())
        assert self.ledger.counts().jobs == {status: states[status] for status in JobState}
        self.check_storage(self.models)

    def teardown(self) -> None:
        self.ledger.close()


def run(machine: Callable[[], LedgerMachine]) -> None:
    steps = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
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
        bench = RedisBench(POLICY, redis_url)
        prefix = f"{{ascribe:{bench.tenant}}}:{LAYOUT}:"

        def check(models: dict[str, Model]) -> None:
            def ids(*states: JobState) -> list[str]:
                return sorted(job_id for job_id, model in models.items() if model.status in states)

            def members(name: str) -> list[str]:
                found: Any = server.zrange(prefix + name, 0, -1)
                return sorted(found)

            def keys(pattern: str) -> list[str]:
                found: Any = server.keys(prefix + pattern)
                return sorted(found)

            assert members("queued") == ids(JobState.QUEUED)
            assert members("running") == ids(*LEASED)
            assert members("ended") == ids(JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
            assert members("jobs") == sorted(models)
            for kind in ("job", "spec", "events"):
                assert keys(f"{kind}:*") == [f"{prefix}{kind}:{job_id}" for job_id in sorted(models)]
            holding = {key.split(":")[-2] for key in keys("scores:*")}
            assert holding <= set(ids(*LEASED, JobState.SUCCEEDED))

        return LedgerMachine(bench, check)

    run(machine)
