"""The parts of an embedded stack that need no server: ports, lock, environment, the guard, restarts."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ascribe.client.discovery import Running, write_running
from ascribe.embedded.child import Child, Guard, StackError, spawn
from ascribe.embedded.host import free_ports, lock, ready_workers, require_extra
from ascribe.embedded.stack import Stack, worker_arguments

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import os, signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); print('up', flush=True); time.sleep(60)",
]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """No such process, or one that only waits for its parent to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path("/proc/self").exists()


class Nursery:
    """Starts children under a guard and ends them with the test."""

    def __init__(self, folder: Path, lock_handle: int) -> None:
        self.folder = folder
        self.guard = Guard(lock_handle)
        self.children: list[Child] = []

    def start(self, command: list[str]) -> Child:
        log = self.folder / "child.log"
        env = dict(os.environ)
        child = Child("child", log, self.guard, lambda: spawn(command, env=env, cwd=self.folder, log=log))
        self.children.append(child)
        return child

    def end(self) -> None:
        self.guard.end(lambda: [child.ended() for child in self.children])


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    with lock(tmp_path) as handle:
        nursery = Nursery(tmp_path, handle)
        yield nursery
        nursery.end()


def test_ports_are_free_and_differ() -> None:
    first, second = free_ports(0, 0)
    assert first != second
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StackError, match="cannot be had"):
            free_ports(0, taken.getsockname()[1])


def test_a_second_stack_on_the_folder_is_refused_with_the_address_of_the_first(tmp_path: Path) -> None:
    with lock(tmp_path):
        write_running(tmp_path, Running(url="http://127.0.0.1:4711", pid=os.getpid(), started_at=datetime.now(UTC)))
        with pytest.raises(StackError, match=r"127\.0\.0\.1:4711"), lock(tmp_path):
            pass
    with lock(tmp_path):
        pass


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "celery" else object())
    with pytest.raises(StackError, match=r"ascribe\[embedded\].*missing: celery"):
        require_extra()


def test_a_missing_data_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="not a folder"), Stack(tmp_path / "none", state_dir=tmp_path / "state"):
        pass


def test_the_children_are_told_where_everything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCRIBE_HOST", "0.0.0.0")  # noqa: S104  must not leak into a stack without a key
    monkeypatch.setenv("ASCRIBE_STALL_SECONDS", "7")
    stack = Stack(tmp_path, state_dir=tmp_path / "state", env={"ASCRIBE_LEASE_SECONDS": "5"})
    env = stack._environment(1234, 5678)
    assert env["ASCRIBE_REDIS_URL"] == "redis://127.0.0.1:1234/0"
    assert (env["ASCRIBE_HOST"], env["ASCRIBE_PORT"]) == ("127.0.0.1", "5678")
    assert (env["ASCRIBE_LEASE_SECONDS"], env["ASCRIBE_STALL_SECONDS"]) == ("5", "7")
    assert Path(env["ASCRIBE_CACHE_DIR"]) == tmp_path.resolve() / "state" / "cache"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert worker_arguments(1)[-1] != worker_arguments(2)[-1]


def test_nobody_answering_is_not_ready() -> None:
    assert ready_workers(f"http://127.0.0.1:{free_ports(0)[0]}") == 0


def test_a_stubborn_child_and_its_own_children_are_ended(nursery: Nursery) -> None:
    stubborn = nursery.start(STUBBORN)
    until(lambda: stubborn.tail().count("up") == 2)
    stubborn.kill()
    assert stubborn.ended() == -signal.SIGKILL
    with pytest.raises(StackError, match="code -9"):
        stubborn.check()


def test_the_guard_ends_all_when_it_is_told_to(nursery: Nursery) -> None:
    sleeper = nursery.start(SLEEPER)
    assert sleeper.ended() is None
    nursery.end()
    assert sleeper.ended() == -signal.SIGTERM


def test_the_guard_ends_all_when_its_stack_is_killed(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from ascribe.embedded.child import Child, Guard, spawn
from ascribe.embedded.host import lock
folder = Path({str(tmp_path)!r})
with lock(folder) as handle:
    guard = Guard(handle)
    log = folder / "child.log"
    child = Child("child", log, guard, lambda: spawn({SLEEPER!r}, env=dict(os.environ), cwd=folder, log=log))
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    pid = int(killed.stdout)
    until(lambda: gone(pid))
    with lock(tmp_path):  # waits until the guard has let go
        pass


def test_a_child_that_ended_is_started_again_later_and_later(nursery: Nursery) -> None:
    failing = nursery.start([sys.executable, "-c", "raise SystemExit(3)"])
    said: list[str] = []
    first = failing.pid

    def restarted_twice() -> bool:
        failing.revive(said.append)
        return len(said) == 2

    until(restarted_twice)
    assert failing.pid != first
    assert "code 3" in said[0]
    assert [line.split(" in ")[1].split(" (")[0] for line in said] == ["1 s", "2 s"]


def test_restart_replaces_a_running_child(nursery: Nursery) -> None:
    sleeper = nursery.start(SLEEPER)
    first = sleeper.pid
    sleeper.restart()
    assert gone(first)
    assert sleeper.ended() is None
