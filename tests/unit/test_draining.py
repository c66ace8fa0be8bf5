"""How a pool's child hears that it is to stop, in a process of its own: signals are not for this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker import draining

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import signal, subprocess, sys, time
from billiard.common import reset_signals
from worker import draining
draining.listen()
reset_signals()  # as billiard does after the child's initializer: its handler would end the process
reader = subprocess.Popen(["sleep", "30"])
print("listening", flush=True)
draining.told.wait(20)
print("told, and the reader", "lives" if reader.poll() is None else "has ended", flush=True)
sys.stdin.readline()
reader.kill()
try:
    draining.refuse()
except SystemExit as ended:
    print("refused", ended.code, flush=True)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert _line(process) == "listening"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, draining.NOTICE])
def test_it_hears_and_lives_and_so_does_what_it_has_started(
    child: subprocess.Popen[str], number: signal.Signals
) -> None:
    os.killpg(child.pid, number)
    assert _line(child) == "told, and the reader lives"
    os.kill(child.pid, draining.NOTICE)  # said again by the parent
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert _line(child) == "refused 0"


def test_a_second_sigterm_ends_it_at_once(child: subprocess.Popen[str]) -> None:
    os.kill(child.pid, signal.SIGTERM)
    assert _line(child) == "told, and the reader lives"
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(10) == draining.KILLED


def test_who_was_not_told_does_not_refuse() -> None:
    draining.refuse()
