"""What must hold of a ledger after every step of a random history; the steps are in test_ledger_machine.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from ascribe.errors import Expired
from ascribe.event import EventType
from ascribe.job import JobState
from ascribe.ledger.base import QUEUES, Claim, JobFilter, LeaseLost, Part, Policy, Pulse, WorkerInfo, model_key
from tests.support.ledger import Bench, spec
from tests.support.ledger_model import LEASED, Model, WorkModel

UNIT_SECONDS = 1000.0
"""Of the machine's time. What a real server's own clock adds within a history is nothing beside it."""
POLICY = Policy(
    lease_seconds=60.5 * UNIT_SECONDS,
    ring_again_seconds=15.3 * UNIT_SECONDS,
    max_attempts=2,
    retry_backoff_seconds=100,
    result_ttl_seconds=300.5 * UNIT_SECONDS,
    record_ttl_seconds=500.5 * UNIT_SECONDS,
    idempotency_ttl_seconds=400.5 * UNIT_SECONDS,
)
# Mostly of one queue and priority, where a claim has a choice.
SPECS = [
    *(spec(base) for base in ("minilm", "bert", "minilm", "bert")),
    spec(queue="gpu"),
    spec(priority="high"),
]
MODELS = sorted({model_key(one.model) for one in SPECS})
ENVIRONMENTS = ("env", "another")
LIVE = {("cpu", "env"): 3, ("gpu", "env"): 2, ("cpu", "another"): 1}
MOSTLY = st.sampled_from([True, True, True, True, False])
PARTS = ("a", "b", "c", "d")
FINAL = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED)


class Checked(RuleBasedStateMachine):
    """A ledger beside its model."""

    def __init__(self, bench: Bench, check_storage: Callable[[Mapping[str, Model]], None]) -> None:
        super().__init__()
        self.bench = bench
        self.ledger = bench.ledger
        self.check_storage = check_storage
        self.now = 0.0
        self.models: dict[str, Model] = {}
        self.claims: list[Claim] = []
        self.parts: list[Part] = []
        for (queue, environment), count in LIVE.items():
            for number in range(count):
                name = f"{queue}-{environment}-{number}"
                info = WorkerInfo(name, queue, {}, "sdpa", 4096, 256, queue, environment)
                self.ledger.register_worker(info, 1e6 * UNIT_SECONDS)

    def pick_job(self, data: st.DataObject, *among: JobState) -> tuple[str, Model]:
        """One in these states, where there is one, and mostly so."""
        ids = [job_id for job_id, model in self.models.items() if model.status in among]
        mostly = data.draw(MOSTLY)
        job_id = data.draw(st.sampled_from(sorted(ids if ids and mostly else self.models)))
        return job_id, self.models[job_id]

    def pick_claim(self, data: st.DataObject) -> tuple[Claim, Model]:
        """Mostly one that still holds."""
        held = [claim for claim in self.claims if self.model(claim).owns(claim)]
        mostly = data.draw(MOSTLY)
        claim = data.draw(st.sampled_from(held if held and mostly else self.claims))
        return claim, self.model(claim)

    def pick_part(self, data: st.DataObject) -> Part:
        """Mostly one of those taken last."""
        return data.draw(st.sampled_from(self.parts[-3:] if data.draw(MOSTLY) else self.parts))

    def model(self, of: Claim | Part) -> Model:
        return self.models.get(of.job_id) or Model(SPECS[0], POLICY, 0, 0, JobState.FAILED)

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

    # -- what must hold ---------------------------------------------------------------------------------------
    @invariant()
    def what_is_read_is_what_the_model_says(self) -> None:
        for (job_id, model), pulse in zip(self.models.items(), self.ledger.pulses(list(self.models)), strict=True):
            if pulse != model.pulse:
                self.check_record(job_id, model)
            self.check_result(job_id, model)
            if model.owner is not None and model.status in LEASED:
                work = model.work or WorkModel("", 0, {})
                assert self.ledger.standing(model.owner) == work.standing(self.now)
                finished = self.ledger.finished_parts(model.owner)
                assert finished == work.finished
                assert len({name for name, _ in finished}) == len(finished)
        counts = self.ledger.counts()
        states = Counter(model.status for model in self.models.values())
        assert counts.jobs == {status: states[status] for status in JobState}
        for queue in QUEUES:
            here = Counter(model.status for model in self.models.values() if model.spec.queue == queue)
            assert counts.queues[queue].queued == here[JobState.QUEUED]
            assert counts.queues[queue].running == sum(here[status] for status in LEASED)
        self.check_storage(self.models)

    def check_record(self, job_id: str, model: Model) -> None:
        job = self.ledger.get(job_id)
        assert (job.status, job.attempt) == (model.status, model.attempt)
        assert sum(attempt.outcome == "lost" for attempt in job.attempts) == model.lost
        assert sum(attempt.outcome == "succeeded" for attempt in job.attempts) == (job.status == JobState.SUCCEEDED)
        if model.seen is not None and model.seen != job:
            assert job.revision > model.seen.revision
        model.seen = job
        (model.pulse,) = self.ledger.pulses([job_id])
        events = self.ledger.events(job_id)
        assert model.pulse == Pulse(job.status, job.revision, events[-1].id)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        final = [event.type for event in events if event.type in FINAL]
        assert final == [step for step in FINAL if step.value == job.status]
        if model.status.terminal:
            model.final = model.final or job
            assert job == model.final

    def check_result(self, job_id: str, model: Model) -> None:
        if model.status != JobState.SUCCEEDED:
            return
        if self.now >= model.ended_at + POLICY.result_ttl_seconds:
            with pytest.raises(Expired):
                self.ledger.read(job_id, "mean")
        else:
            assert b"".join(self.ledger.read(job_id, "mean")) == b"%d" % model.fence

    def teardown(self) -> None:
        """Everything ends, its time passes, and nothing is left."""
        for job_id, model in self.models.items():
            self.check_record(job_id, model)  # also where no pulse says that there is something to see
        for job_id in self.models:
            self.ledger.request_cancel(job_id)
        self.bench.advance(POLICY.lease_seconds)
        self.ledger.reconcile()
        self.bench.advance(POLICY.record_ttl_seconds)
        self.ledger.reconcile()
        assert self.ledger.list(JobFilter()).jobs == ()
        assert set(self.ledger.counts().jobs.values()) == {0}
        self.check_storage({})
        self.ledger.close()


@contextmanager
def refused_unless(allowed: bool) -> Iterator[None]:
    """LeaseLost is raised when, and only when, the model says so."""
    if allowed:
        yield
    else:
        with pytest.raises(LeaseLost):
            yield


def check_keys(server: redis.Redis, prefix: str, models: Mapping[str, Model]) -> None:
    """Every key of the tenant is one that these jobs account for."""
    every: Any = server.keys(prefix + "*")
    keys = {key.removeprefix(prefix) for key in every} - {"totals", "workers"}

    def ids(*states: JobState) -> set[str]:
        return {job_id for job_id, model in models.items() if model.status in states}

    def members(*names: str) -> list[str]:
        with server.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.zrange(prefix + name, 0, -1)
            found = pipeline.execute()
        return sorted(member for of_one in found for member in of_one)

    def take(kind: str) -> set[str]:
        taken = {key for key in keys if key.startswith(kind + ":")}
        keys.difference_update(taken)
        return {key.split(":", 1)[1] for key in taken}

    leased, sharing = ids(*LEASED), {job_id for job_id, model in models.items() if model.work is not None}
    assert sharing <= leased
    assert members("queued") == members(*(f"waiting:{key}" for key in take("waiting"))) == sorted(ids(JobState.QUEUED))
    assert members("running") == sorted(leased)
    assert members("ended") == sorted(job_id for job_id, model in models.items() if model.status.terminal)
    assert members("jobs") == members(*(f"state:{key}" for key in take("state"))) == sorted(models)
    assert set(members("calls")) <= sharing
    for kind in ("job", "spec", "events"):
        assert take(kind) == set(models)
    assert take("work") == sharing
    assert take("parts") | take("finished") <= sharing
    assert {key.split(":")[0] for key in take("scores")} <= leased | ids(JobState.SUCCEEDED)
    assert len(take("idempotency")) <= len(models)
    assert keys <= {"jobs", "queued", "running", "ended", "calls"}
