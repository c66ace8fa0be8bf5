"""Random histories of a ledger against a model: terminal is final, one commit, the fence and tokens only grow.

R11 of the chaos suite is this with more examples: ``ASCRIBE_CHAOS_EXAMPLES``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from ascribe.errors import Conflict, NotFound
from ascribe.job import JobState
from ascribe.ledger.base import Call, Claim, IdempotencyKey, Part, Ring, WrongEnvironment
from ascribe.ledger.ids import new_job_id
from ascribe.spec import JobSpec
from tests.support.ledger import ERROR, PROGRESS, MemoryBench, TimelessRedisBench, manifest
from tests.support.ledger_machine import (
    ENVIRONMENTS,
    MODELS,
    MOSTLY,
    PARTS,
    POLICY,
    SPECS,
    UNIT_SECONDS,
    Checked,
    check_keys,
    refused_unless,
)
from tests.support.ledger_model import LEASED, Model, PartModel, WorkModel

ENDS = ("commit", "fail", "cancelled", "hand_back")
THEN = st.sampled_from(["hold", "hold", "finish", "drop"])
ASKED = st.sampled_from(SPECS)
NAMES = st.lists(st.sampled_from(PARTS), unique=True, min_size=1)


class LedgerMachine(Checked):
    # -- callers ----------------------------------------------------------------------------------------------
    @initialize(asked=ASKED, names=NAMES)
    def begin(self, asked: JobSpec, names: list[str]) -> None:
        """Every history has a job that runs and shares its work, or little would happen in most."""
        job_id = self.add(asked)
        self.check_claim(job_id, 1, "")
        self.check_offer(self.claims[-1], names, "env")

    @precondition(lambda self: len(self.models) < 6)
    @rule(waiting=st.lists(ASKED, min_size=1, max_size=3))
    def create(self, waiting: list[JobSpec]) -> None:
        for asked in waiting:
            self.add(asked)

    @precondition(lambda self: len(self.models) < 6)
    @rule(asked=ASKED, names=NAMES)
    def begin_another(self, asked: JobSpec, names: list[str]) -> None:
        self.begin(asked, names)

    def add(self, asked: JobSpec) -> str:
        job_id = new_job_id()
        assert not self.ledger.create(job_id, asked, IdempotencyKey(job_id, "body")).replayed
        self.models[job_id] = Model(asked, POLICY, self.now, self.now)
        return job_id

    @precondition(lambda self: self.models)
    @rule(data=st.data(), how=st.sampled_from(["cancel", "delete", *ENDS]))
    def stop(self, data: st.DataObject, how: str) -> None:
        """One rule for all ways to stop a job, so that in most steps none is."""
        if how == "cancel":
            self.check_cancel(*self.pick_job(data, JobState.RUNNING))
        elif how == "delete":
            self.check_delete(*self.pick_job(data, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED))
        elif self.claims:
            self.check_end(*self.pick_claim(data), how)

    def check_cancel(self, job_id: str, model: Model) -> None:
        self.ledger.request_cancel(job_id)
        if model.status == JobState.QUEUED:
            model.end(JobState.CANCELLED, self.now)
        elif model.status == JobState.RUNNING:
            model.status = JobState.CANCELLING

    def check_delete(self, job_id: str, model: Model) -> None:
        if model.status.terminal:
            self.ledger.delete(job_id)
            del self.models[job_id]
        else:
            with pytest.raises(Conflict):
                self.ledger.delete(job_id)

    # -- workers ----------------------------------------------------------------------------------------------
    @precondition(lambda self: any(model.status == JobState.QUEUED for model in self.models.values()))
    @rule(data=st.data(), right=MOSTLY, warm=st.lists(st.sampled_from(["", *MODELS]), min_size=1, max_size=3))
    def claim(self, data: st.DataObject, right: bool, warm: list[str]) -> None:
        job_id, model = self.pick_job(data, JobState.QUEUED)
        for loaded in warm:
            self.check_claim(job_id, model.attempt if right else model.attempt + 1, loaded)

    def check_claim(self, job_id: str, attempt: int, warm: str) -> None:
        model = self.models[job_id]
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
    @rule(data=st.data(), what=st.sampled_from(["renew", "progress", "stage"]))
    def write(self, data: st.DataObject, what: str) -> None:
        claim, model = self.pick_claim(data)
        with refused_unless(model.owns(claim)):
            if what == "stage":
                self.ledger.stage(claim, "mean", [b"%d" % claim.fence])
            else:
                cancel = self.ledger.renew(claim) if what == "renew" else self.ledger.progress(claim, PROGRESS)
                assert cancel == (model.status == JobState.CANCELLING)
                model.lease_until = self.now + POLICY.lease_seconds

    def check_end(self, claim: Claim, model: Model, how: str) -> None:
        match how:
            case "commit":
                cancelled = model.status in (JobState.CANCELLING, JobState.CANCELLED)
                to = JobState.CANCELLED if cancelled else JobState.SUCCEEDED
                if model.owns(claim):
                    self.ledger.stage(claim, "mean", [b"%d" % claim.fence])
                self.check_said_so(claim, model, to, lambda: self.ledger.commit(claim, manifest("mean")))
            case "fail":
                self.check_said_so(claim, model, JobState.FAILED, lambda: self.ledger.fail(claim, ERROR))
            case "cancelled" if model.owns(claim) and model.status == JobState.RUNNING:
                with pytest.raises(Conflict):
                    self.ledger.cancelled(claim)
            case "hand_back" if model.owns(claim) and model.status == JobState.RUNNING:
                self.ledger.hand_back(claim)
                model.queue_again(self.now)
            case "hand_back" if claim.attempt < model.attempt:
                pass  # the model does not remember how earlier attempts ended
            case _:
                call = self.ledger.cancelled if how == "cancelled" else self.ledger.hand_back
                self.check_said_so(claim, model, JobState.CANCELLED, lambda: call(claim))

    def check_said_so(self, claim: Claim, model: Model, to: JobState, call: Callable[[], None]) -> None:
        # Said again by the one who said it is no error, and changes nothing.
        with refused_unless(model.owner is claim and model.status in (*LEASED, to)):
            call()
            if model.status != to:
                model.end(to, self.now)

    # -- shared work ------------------------------------------------------------------------------------------
    @precondition(lambda self: self.claims)
    @rule(data=st.data(), names=NAMES, environment=st.sampled_from(ENVIRONMENTS))
    def offer(self, data: st.DataObject, names: list[str], environment: str) -> None:
        self.check_offer(self.pick_claim(data)[0], names, environment)

    def check_offer(self, claim: Claim, names: list[str], environment: str) -> None:
        model = self.model(claim)
        with refused_unless(model.owns(claim)):
            self.ledger.offer(claim, environment, names)
            model.work = WorkModel(environment, self.now, {name: PartModel() for name in names})

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), then=st.lists(THEN, min_size=1, max_size=4), as_owner=st.booleans(), right=MOSTLY)
    def take(self, data: st.DataObject, then: list[str], as_owner: bool, right: bool) -> None:
        """Parts one after the other, and what becomes of each."""
        claim, model = self.pick_claim(data)
        owner = claim if as_owner else None
        environment = model.work.environment if model.work and right else "a third"
        for verb in then:
            if model.status == JobState.RUNNING and model.work and not right and (model.owns(claim) or not owner):
                with pytest.raises(WrongEnvironment):
                    self.ledger.take(claim.job_id, "h", environment, owner=owner)
                continue
            with refused_unless(model.owns(claim) or not owner):
                part = self.ledger.take(claim.job_id, "h", environment, owner=owner)
                self.check_taken(model, part, as_owner)
                if part is not None and verb != "hold":
                    self.check_said(part, verb)

    def check_taken(self, model: Model, part: Part | None, as_owner: bool) -> None:
        opened = model.work.open(self.now) if model.work and model.status == JobState.RUNNING else {}
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
    @rule(data=st.data(), verb=st.sampled_from(["keep", "finish", "drop"]))
    def say_of_a_part(self, data: st.DataObject, verb: str) -> None:
        self.check_said(self.pick_part(data), verb)

    def check_said(self, part: Part, verb: str) -> None:
        model = self.model(part)
        with refused_unless(model.holds(part) or (verb == "finish" and model.finished(part))):
            getattr(self.ledger, verb)(part)
            model.part(part).due = 0 if verb == "drop" else self.now + POLICY.lease_seconds
            if verb == "drop":
                model.part(part).token = None
            if verb == "finish":
                model.finish(part)

    # -- time -------------------------------------------------------------------------------------------------
    @rule(units=st.sampled_from([0, 31, 31, 61, 501]), renewing=MOSTLY, reconciling=MOSTLY)
    def time_passes(self, units: int, renewing: bool, reconciling: bool) -> None:
        self.bench.advance(units * UNIT_SECONDS)
        self.now += units * UNIT_SECONDS
        for model in self.models.values():
            if renewing and model.owner and model.status in LEASED:
                self.ledger.renew(model.owner)
                model.lease_until = self.now + POLICY.lease_seconds
        gone = [job_id for job_id, model in self.models.items() if model.expired(self.now)]
        for job_id in gone:
            del self.models[job_id]
            with pytest.raises(NotFound):
                self.ledger.get(job_id)
        if gone or reconciling:
            self.reconcile()

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


def run(machine: Callable[[], LedgerMachine]) -> None:
    steps = settings(
        max_examples=int(os.environ.get("ASCRIBE_CHAOS_EXAMPLES", "50")),
        stateful_step_count=50,
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
