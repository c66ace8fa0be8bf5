"""``python -m worker.probe`` beside a real worker: well, frozen, and without its server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.bench import ROOT, ChaosBench
from tests.support.waiting import await_that

SECONDS = 3.0
"""How old the last turn of the main loop may be here."""
COUNTING = """
import sys
from worker import probe
code = probe.main()
print([name for name in ("celery", "torch") if name in sys.modules])
sys.exit(code)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ChaosBench]:
    env = {"ASCRIBE_ALIVE_FILE": str(tmp_path / "alive"), "ASCRIBE_REDIS_TIMEOUT_SECONDS": "1"}
    with ChaosBench(tmp_path, workers=1, worker_env=lambda _: env) as bench:
        yield bench


def _probe(bench: ChaosBench, what: str, seconds: float = SECONDS) -> tuple[int, str]:
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "ASCRIBE_ALIVE_FILE": str(bench.folder / "alive"),
        "ASCRIBE_REDIS_URL": bench.settings.redis_url,
    }
    ended = subprocess.run(
        [sys.executable, "-c", COUNTING, what, "--seconds", str(seconds)],
        env=env,
        cwd=bench.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    *why, loaded = ended.stdout.splitlines()
    assert loaded == "[]"
    return ended.returncode, " ".join(why)


def test_a_frozen_worker_is_found_out_and_a_thawed_one_is_well_again(bench: ChaosBench) -> None:
    parent = bench.workers[0].process.pid
    assert _probe(bench, "alive") == _probe(bench, "ready") == (0, "")
    os.kill(parent, signal.SIGSTOP)
    time.sleep(SECONDS + 1)
    code, why = _probe(bench, "alive")
    os.kill(parent, signal.SIGCONT)
    assert (code, "has not turned for" in why) == (1, True)
    time.sleep(2)
    assert _probe(bench, "alive") == (0, "")


def test_without_its_server_a_worker_is_alive_and_not_ready(bench: ChaosBench) -> None:
    bench.kill_server()
    time.sleep(2 * SECONDS)
    # The loop stands still meanwhile; every five seconds the thread that finds no server says so in its place.
    assert _probe(bench, "alive", seconds=8) == (0, "")
    code, why = _probe(bench, "ready", seconds=8)
    assert (code, "Redis" in why) == (1, True)
    bench.start_server()

    def turns_again() -> bool:
        time.sleep(SECONDS)  # since when nobody but the loop has shown that it turns
        return _probe(bench, "ready") == (0, "")

    await_that(turns_again, "a loop that turns", within_seconds=40)


def test_without_a_file_to_look_at_it_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "worker.probe"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout.count("\n")) == (1, 1)
    assert "ASCRIBE_ALIVE_FILE" in ended.stdout
