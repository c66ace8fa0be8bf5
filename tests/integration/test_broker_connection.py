"""A worker whose message cannot be acknowledged goes on taking messages: the ledger, not the broker, counts."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.bench import ChaosBench
from tests.chaos.noop_work import noop_spec
from tests.support.faults.proxy import FaultyProxy
from tests.support.waiting import await_that

ACKNOWLEDGE = b"\r\nZREM\r\n"
"""What kombu sends to acknowledge a message, and nobody else."""


def test_a_worker_that_could_not_acknowledge_takes_the_next_job(tmp_path: Path) -> None:
    proxy = FaultyProxy()
    with ChaosBench(tmp_path, workers=1, front=proxy.before) as bench:
        proxy.cut_next(ACKNOWLEDGE)
        bench.submit(noop_spec())
        bench.checker.wait(30)
        log = bench.logs / "worker-1.log"
        await_that(lambda: "Couldn't ack" in log.read_text(), "an acknowledgement that fails")
        bench.submit(noop_spec())
        bench.checker.wait(30)
        assert bench.checker.outcome().facts["succeeded"] == 2
