"""One process of an embedded stack: its own session, its log file, and the guard that outlives us."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ascribe.embedded.guard import end_group, signal_group

TAIL_LINES = 20
LONGEST_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that ran so long counts as healthy: its next end is a first failure again."""


class StackError(Exception):
    """The stack cannot start or go on; the message says what to do and ends with the log's last lines."""


class Guard:
    """Our end of :mod:`ascribe.embedded.guard`: closing the pipe ends every child still watched."""

    def __init__(self, lock: int) -> None:
        """``lock``: file descriptor of the state folder's lock, which the guard holds on to until all have ended."""
        self._process = subprocess.Popen(
            # By path, not -m: it starts in milliseconds and needs nothing of ours to be importable.
            [sys.executable, "-I", str(Path(__file__).with_name("guard.py"))],
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
            pass_fds=(lock,),
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def end(self, reap: Callable[[], object]) -> None:
        """End all; ``reap`` collects our dead children meanwhile, for an uncollected one looks alive to the guard."""
        if self._process.stdin:
            self._process.stdin.close()
        while self._process.poll() is None:
            reap()
            time.sleep(0.02)
        reap()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None or self._process.poll() is not None:
            raise StackError("the guard process of this stack is gone; end the stack and start it again")
        self._process.stdin.write(line)


class Child:
    """A process and how to start it again. ``start`` must put it into a session of its own."""

    def __init__(self, name: str, log: Path, guard: Guard, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self.log = log
        self._guard = guard
        self._start = start
        self._failures = 0
        self._due: float | None = None
        self._begin()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL to the whole group, as the kernel does when memory runs out."""
        signal_group(self.pid, signal.SIGKILL)
        self._process.wait()

    def restart(self) -> None:
        """End what is left of it and start a new one."""
        end_group(self.pid, reap=self.ended)
        self._guard.forget(self.pid)
        self._begin()

    def revive(self, say: Callable[[str], None]) -> None:
        """To be called now and then: starts it again when it has ended, after 1 s, 2 s, 4 s and so on."""
        if (code := self.ended()) is None:
            return
        now = time.monotonic()
        if self._due is None:
            self._failures = 1 if now - self._began > STEADY_SECONDS else self._failures + 1
            pause = min(2.0 ** (self._failures - 1), LONGEST_BACKOFF_SECONDS)
            self._due = now + pause
            say(f"{self.name} ended with code {code}; starting it again in {pause:g} s (log: {self.log})")
        elif now >= self._due:
            self.restart()

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-TAIL_LINES:])

    def check(self) -> None:
        """Raises StackError when it has ended."""
        if (code := self.ended()) is not None:
            raise StackError(f"{self.name} ended with code {code}; the end of {self.log}:\n{self.tail()}")

    def _begin(self) -> None:
        self._process = self._start()
        self._guard.watch(self.pid)
        self._began = time.monotonic()
        self._due = None


def spawn(command: list[str], *, env: dict[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start ``command`` in its own session, with its output appended to ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
