"""What one job costs the server: round trips, commands and bytes. A step that grows is seen here first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ascribe.embedded.server import free_port, start_server
from ascribe.ledger.base import Claim, Policy
from ascribe.ledger.redis import RedisLedger
from tests.support.ledger import claim, create, manifest, succeed


class Meter:
    """Counts on a server of its own, so that nobody else is counted."""

    def __init__(self, port: int) -> None:
        self.ledger = RedisLedger(f"redis://127.0.0.1:{port}/0", tenant="t", policy=Policy(), timeout_seconds=5)
        self._client = redis.Redis(port=port)
        # What is done once is done: connecting, loading the scripts that every job needs.
        self.ledger.reconcile()
        succeed(self.ledger, claim(self.ledger, create(self.ledger)), mean=b"1234")

    def cost(self, call: Callable[[], object]) -> tuple[int, int, int]:
        """Round trips, commands within them, and bytes there and back."""
        self._client.config_resetstat()
        call()
        traffic: Any = self._client.info("stats")  # first: what it answers is not in its answer
        info: Any = self._client.info("commandstats")
        ours = ("cmdstat_config|resetstat", "cmdstat_info")
        calls = {name: one["calls"] for name, one in info.items() if name not in ours}
        trips = calls.pop("cmdstat_evalsha")
        return trips, sum(calls.values()), traffic["total_net_input_bytes"] + traffic["total_net_output_bytes"]

    def close(self) -> None:
        self.ledger.close()
        self._client.close()


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    port = free_port()
    server = start_server(tmp_path, port, append_only=False)
    meter = Meter(port)
    yield meter
    meter.close()
    server.kill()
    server.wait()


def test_a_job_that_does_nothing_is_three_round_trips_and_a_share_of_one(meter: Meter) -> None:
    ledger = meter.ledger
    job_ids: list[str] = []
    owners: list[Claim] = []

    steps: list[tuple[Callable[[], object], int, int]] = [
        (lambda: job_ids.append(create(ledger)), 12, 4_500),
        (lambda: owners.append(claim(ledger, job_ids[0])), 10, 1_500),
        (lambda: ledger.commit(owners[0], manifest()), 18, 2_000),
    ]
    for step, most_commands, most_bytes in steps:
        trips, commands, size = meter.cost(step)
        assert trips == 1
        assert commands <= most_commands
        assert size <= most_bytes

    for _ in range(100):
        create(ledger)
    trips, commands, _ = meter.cost(ledger.reconcile)
    assert trips == 1
    assert commands <= 3 * 100 + 5


def test_what_a_part_costs_does_not_grow_with_their_number(meter: Meter) -> None:
    ledger = meter.ledger

    def costs(count: int) -> list[int]:
        owner = claim(ledger, create(ledger))
        ledger.offer(owner, "env", [f"{i:06}" for i in range(count)])
        part: Any = None

        def take() -> None:
            nonlocal part
            part = ledger.take(owner.job_id, "w2", "env")

        calls = [take, lambda: ledger.keep(part), lambda: ledger.finish(part), lambda: ledger.standing(owner)]
        return [meter.cost(call)[1] for call in (*calls, ledger.reconcile)]

    costs(1)
    assert costs(10_000) == costs(10)


def test_a_renewal_is_one_small_step(meter: Meter) -> None:
    owner = claim(meter.ledger, create(meter.ledger))
    meter.ledger.renew(owner)
    trips, commands, size = meter.cost(lambda: meter.ledger.renew(owner))
    assert trips == 1
    assert commands <= 3
    assert size <= 300
