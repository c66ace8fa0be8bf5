"""The Redis ledger in trouble: a server that dies, hangs, is full or read-only, and many callers at once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from ascribe.embedded.server import free_port, start_server
from ascribe.errors import NotReady, QueueUnavailable
from ascribe.job import JobState
from ascribe.ledger.base import Claim, IdempotencyKey, JobFilter, Ledger, Part, Policy, WorkerInfo
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.redis import LAYOUT, RedisLedger
from tests.support.ledger import ERROR, PROGRESS, claim, create, manifest, running, spec, succeed

POLICY = Policy()
WORKER = WorkerInfo("w1", "cpu", {}, "sdpa", 4096, 256, "cpu", "env")


def part_of(owner: Claim) -> Part:
    return Part(owner.job_id, owner.fence, "a", 1, "w2")


CALLS: dict[str, Callable[[Ledger, Claim], object]] = {
    "create": lambda ledger, _: ledger.create(new_job_id(), spec()),
    "replayed": lambda ledger, _: ledger.replayed(IdempotencyKey("k", "body")),
    "get": lambda ledger, one: ledger.get(one.job_id),
    "spec": lambda ledger, one: ledger.spec(one.job_id),
    "events": lambda ledger, one: ledger.events(one.job_id),
    "pulses": lambda ledger, one: ledger.pulses([one.job_id]),
    "list": lambda ledger, _: ledger.list(JobFilter()),
    "request_cancel": lambda ledger, one: ledger.request_cancel(one.job_id),
    "delete": lambda ledger, one: ledger.delete(one.job_id),
    "read": lambda ledger, one: ledger.read(one.job_id, "mean"),
    "read_range": lambda ledger, one: ledger.read_range(one.job_id, ["mean"], 0, 4),
    "claim": lambda ledger, one: ledger.claim(one.job_id, 1, "w2"),
    "renew": lambda ledger, one: ledger.renew(one),
    "progress": lambda ledger, one: ledger.progress(one, PROGRESS),
    "stage": lambda ledger, one: ledger.stage(one, "mean", [b"1234"]),
    "commit": lambda ledger, one: ledger.commit(one, manifest()),
    "fail": lambda ledger, one: ledger.fail(one, ERROR),
    "cancelled": lambda ledger, one: ledger.cancelled(one),
    "hand_back": lambda ledger, one: ledger.hand_back(one),
    "mourn": lambda ledger, one: ledger.mourn(one.job_id, 1, "w1"),
    "offer": lambda ledger, one: ledger.offer(one, "env", ["a"]),
    "take": lambda ledger, one: ledger.take(one.job_id, "w2", "env"),
    "keep": lambda ledger, one: ledger.keep(part_of(one)),
    "finish": lambda ledger, one: ledger.finish(part_of(one)),
    "drop": lambda ledger, one: ledger.drop(part_of(one)),
    "standing": lambda ledger, one: ledger.standing(one),
    "finished_parts": lambda ledger, one: ledger.finished_parts(one),
    "reconcile": lambda ledger, _: ledger.reconcile(),
    "counts": lambda ledger, _: ledger.counts(),
    "ping": lambda ledger, _: ledger.ping(),
    "register_worker": lambda ledger, _: ledger.register_worker(WORKER, 60),
    "workers": lambda ledger, _: ledger.workers(),
    "announce_gradients": lambda ledger, _: ledger.announce_gradients("f", 1),
    "announced_gradients": lambda ledger, _: ledger.announced_gradients("f"),
    "take_turn": lambda ledger, _: ledger.take_turn("sweep", 1),
}


class Server:
    """A server of this test's own, to be mistreated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process = self._start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _start(self) -> subprocess.Popen[bytes]:
        return start_server(self.folder, self.port, append_only=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def command(self, *words: str) -> None:
        with redis.Redis(port=self.port) as client:
            client.execute_command(*words)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def ledger(server: Server) -> Iterator[RedisLedger]:
    ledger = RedisLedger(server.url, tenant="default", policy=POLICY, timeout_seconds=0.5)
    yield ledger
    ledger.close()


@pytest.fixture
def shared(redis_url: str) -> Iterator[RedisLedger]:
    ledger = RedisLedger(redis_url, tenant=f"t-{new_job_id()[4:]}", policy=POLICY, timeout_seconds=10)
    yield ledger
    ledger.close()


def refusals(ledger: Ledger, owner: Claim) -> dict[str, tuple[float, str]]:
    """Every method of the ledger at once: how long each took to raise QueueUnavailable, and what it said."""

    def refusal(call: Callable[[Ledger, Claim], object]) -> tuple[float, str]:
        begun = time.monotonic()
        with pytest.raises(QueueUnavailable) as caught:
            call(ledger, owner)
        return time.monotonic() - begun, caught.value.detail

    with ThreadPoolExecutor(len(CALLS)) as pool:
        return dict(zip(CALLS, pool.map(refusal, CALLS.values()), strict=True))


def test_every_method_of_the_contract_is_called() -> None:
    public = {name for name in vars(Ledger) if not name.startswith("_")}
    assert set(CALLS) == public - {"close"}


def test_a_killed_server_is_said_so_within_seconds_and_found_again(server: Server, ledger: RedisLedger) -> None:
    owner = running(ledger)
    server.kill()

    for seconds, detail in refusals(ledger, owner).values():
        assert seconds < 4
        assert "check ASCRIBE_REDIS_URL" in detail
        assert str(server.port) not in detail

    server.restart()
    assert ledger.get(owner.job_id).status == JobState.RUNNING
    succeed(ledger, owner, mean=b"1234")


def test_a_frozen_server_is_not_waited_for(server: Server, ledger: RedisLedger) -> None:
    owner = running(ledger)
    server.send(signal.SIGSTOP)

    for seconds, detail in refusals(ledger, owner).values():
        assert seconds < 4
        assert "in time" in detail

    server.send(signal.SIGCONT)
    ledger.ping()


def test_a_full_server_takes_no_new_work_and_lets_running_jobs_finish(server: Server, ledger: RedisLedger) -> None:
    owner, queued = running(ledger), create(ledger)
    server.command("CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(QueueUnavailable, match="maxmemory"):
        create(ledger)
    with pytest.raises(QueueUnavailable, match="maxmemory"):
        ledger.claim(queued, 1, "w2")
    assert ledger.get(queued).status == JobState.QUEUED

    ledger.progress(owner, PROGRESS)
    succeed(ledger, owner, mean=b"1234")
    assert b"".join(ledger.read(owner.job_id, "mean")) == b"1234"
    assert [ring.job_id for ring in ledger.reconcile().rings] == [queued]
    ledger.delete(owner.job_id)


def test_a_replica_is_said_so(server: Server, ledger: RedisLedger) -> None:
    job_id = create(ledger)
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))

    with pytest.raises(QueueUnavailable, match="primary"):
        ledger.request_cancel(job_id)
    assert ledger.get(job_id).status == JobState.QUEUED
    with pytest.raises(NotReady):
        ledger.read(job_id, "mean")


def test_a_password_is_asked_for_without_repeating_one(server: Server) -> None:
    server.command("CONFIG", "SET", "requirepass", "right-password")
    for user in ("", ":wrong-password@"):
        url = f"redis://{user}127.0.0.1:{server.port}/0"
        ledger = RedisLedger(url, tenant="default", policy=POLICY, timeout_seconds=1)
        with pytest.raises(QueueUnavailable, match="password") as caught:
            ledger.ping()
        assert "wrong" not in caught.value.detail
        ledger.close()


def test_a_server_that_forgot_the_scripts_is_taught_again(server: Server, ledger: RedisLedger) -> None:
    owner = running(ledger)
    server.command("SCRIPT", "FLUSH")
    succeed(ledger, owner, mean=b"1234")


def test_eight_reconcilers_ring_each_job_once(shared: RedisLedger) -> None:
    jobs = [create(shared) for _ in range(900)]

    def reconcile_all(_: int) -> list[str]:
        taken: list[str] = []
        while batch := shared.reconcile().rings:
            taken += [ring.job_id for ring in batch]
        return taken

    with ThreadPoolExecutor(8) as pool:
        rung = [job_id for taken in pool.map(reconcile_all, range(8)) for job_id in taken]

    assert sorted(rung) == jobs


def test_fifty_creates_with_one_key_make_one_job(shared: RedisLedger) -> None:
    key = IdempotencyKey("k", "body")
    with ThreadPoolExecutor(50) as pool:
        made = list(pool.map(lambda _: shared.create(new_job_id(), spec(), key), range(50)))

    assert len({created.job.id for created in made}) == 1
    assert [created.replayed for created in made].count(False) == 1
    assert len(shared.list(JobFilter()).jobs) == 1


def test_tenants_do_not_see_each_other(shared: RedisLedger, redis_url: str) -> None:
    job_id = create(shared)
    other = RedisLedger(redis_url, tenant="other", policy=POLICY, timeout_seconds=3)
    assert other.list(JobFilter()).jobs == ()
    assert other.claim(job_id, 1, "w1") is None
    other.close()


class Tenant:
    """A ledger and a look at the keys behind it."""

    def __init__(self, url: str, policy: Policy) -> None:
        tenant = f"t-{new_job_id()[4:]}"
        self._prefix = f"{{ascribe:{tenant}}}:{LAYOUT}:"
        self.ledger = RedisLedger(url, tenant=tenant, policy=policy, timeout_seconds=3)
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    def keys(self, pattern: str = "*") -> list[str]:
        found: Any = self.redis.keys(self._prefix + pattern)
        return [key.removeprefix(self._prefix) for key in found]

    def expires_at_ms(self, key: str) -> int:
        moment: Any = self.redis.pexpiretime(self._prefix + key)
        return int(moment)

    def field(self, job_id: str, name: str) -> str | None:
        value: Any = self.redis.hget(f"{self._prefix}job:{job_id}", name)
        return None if value is None else str(value)


@pytest.fixture
def make_tenant(redis_url: str) -> Iterator[Callable[[Policy], Tenant]]:
    made: list[Tenant] = []

    def make(policy: Policy) -> Tenant:
        made.append(Tenant(redis_url, policy))
        return made[-1]

    yield make
    for tenant in made:
        tenant.ledger.close()
        tenant.redis.close()


def fail(ledger: Ledger, owner: Claim) -> None:
    ledger.fail(owner, ERROR)


def cancel(ledger: Ledger, owner: Claim) -> None:
    ledger.request_cancel(owner.job_id)
    ledger.cancelled(owner)


def hand_back(ledger: Ledger, owner: Claim) -> None:
    ledger.hand_back(owner)


def share(ledger: Ledger, owner: Claim) -> None:
    """Work in each of its states: finished, taken, open."""
    ledger.offer(owner, "env", ["a", "b", "c"])
    for end in (ledger.finish, ledger.keep):
        part = ledger.take(owner.job_id, "w2", "env")
        assert part is not None
        end(part)


def commit_too_late(ledger: Ledger, owner: Claim) -> None:
    ledger.request_cancel(owner.job_id)
    ledger.commit(owner, manifest("mean"))


def lose(ledger: Ledger, _: Claim) -> None:
    time.sleep(0.03)
    ledger.reconcile()


def succeed_and_delete(ledger: Ledger, owner: Claim) -> None:
    ledger.commit(owner, manifest("mean"))
    ledger.delete(owner.job_id)


@pytest.mark.parametrize("end", [fail, cancel, hand_back, commit_too_late, lose, succeed_and_delete])
def test_no_score_stays_where_none_can_be_read_and_no_work_where_nobody_works(
    make_tenant: Callable[[Policy], Tenant], end: Callable[[Ledger, Claim], None]
) -> None:
    tenant = make_tenant(Policy(lease_seconds=0.02))
    owner = running(tenant.ledger)
    tenant.ledger.stage(owner, "mean", [b"1234"])
    share(tenant.ledger, owner)
    shared = ("scores:*", "parts:*", "work:*", "finished:*", "calls")
    assert [len(tenant.keys(pattern)) for pattern in shared] == [1] * 5

    end(tenant.ledger, owner)

    assert [tenant.keys(pattern) for pattern in shared] == [[]] * 5


def test_scores_expire_from_the_commit_on_and_never_stay_for_ever(make_tenant: Callable[[Policy], Tenant]) -> None:
    tenant = make_tenant(POLICY)
    owner = running(tenant.ledger)
    tenant.ledger.stage(owner, "mean", [b"1234"])
    (key,) = tenant.keys("scores:*")
    staged = tenant.expires_at_ms(key)
    assert staged > 0

    time.sleep(0.01)
    tenant.ledger.commit(owner, manifest("mean"))

    committed = tenant.expires_at_ms(key)
    assert committed > staged
    assert tenant.field(owner.job_id, "result_until") == str(committed)


def test_nothing_of_a_deleted_job_stays_but_what_was_counted(make_tenant: Callable[[Policy], Tenant]) -> None:
    tenant = make_tenant(POLICY)
    job_id = create(tenant.ledger, idempotency=IdempotencyKey("k", "body"))
    owner = claim(tenant.ledger, job_id)
    share(tenant.ledger, owner)
    succeed(tenant.ledger, owner, mean=b"1234")
    tenant.ledger.delete(job_id)

    assert tenant.keys() == ["totals"]


def test_nothing_of_an_expired_job_stays_but_what_was_counted(make_tenant: Callable[[Policy], Tenant]) -> None:
    policy = Policy(result_ttl_seconds=0.1, record_ttl_seconds=0.2, idempotency_ttl_seconds=0.2)
    tenant = make_tenant(policy)
    job_id = create(tenant.ledger, idempotency=IdempotencyKey("k", "body"))
    owner = claim(tenant.ledger, job_id)
    share(tenant.ledger, owner)
    succeed(tenant.ledger, owner, mean=b"1234")
    time.sleep(0.25)
    tenant.ledger.reconcile()

    assert tenant.keys() == ["totals"]
