"""Both ledgers, for every test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ascribe.ledger.base import Ledger, Policy
from tests.support.ledger import POLICY, Bench, MemoryBench, RedisBench

MakeBench = Callable[[Policy], Bench]


@pytest.fixture(params=["memory", "redis"])
def make_bench(request: pytest.FixtureRequest) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(policy: Policy) -> Bench:
        on_redis = request.param == "redis"
        bench = RedisBench(policy, request.getfixturevalue("redis_url")) if on_redis else MemoryBench(policy)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.ledger.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench(POLICY)


@pytest.fixture
def ledger(bench: Bench) -> Ledger:
    return bench.ledger
