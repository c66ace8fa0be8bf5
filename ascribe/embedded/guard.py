"""Ends an embedded stack, even one whose ``ascribe up`` was killed with -9.

Runs as a process of its own and reads lines ``+pid`` and ``-pid`` from a pipe that only ``up`` holds open. When the
pipe closes, whatever the reason, the process groups still on the list are ended, last started first. It is the one
way a stack ends, so the path taken after a crash is the path taken every day.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

GRACE_SECONDS = 10.0
"""Between asking a group to end and killing it. A worker hands its job back after the batch it is at, and is gone two
seconds later."""


def end_group(group: int, *, grace_seconds: float = GRACE_SECONDS, reap: Callable[[], object] = lambda: None) -> None:
    """SIGTERM to every process of the group, SIGKILL after the grace, and wait until none is left.

    ``reap`` collects the leader where it is the caller's own child: an uncollected one looks alive.
    """
    for number, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + patience
        if not signal_group(group, number):
            return
        while time.monotonic() < deadline:
            reap()
            if not signal_group(group, 0):
                return
            time.sleep(0.02)


def signal_group(group: int, number: int) -> bool:
    """False when the group is gone. Signal 0 only asks."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return False
    return True


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the closing pipe is the only word it listens to
    groups: list[int] = []
    for line in sys.stdin:
        sign, pid = line[0], int(line[1:])
        if sign == "+":
            groups.append(pid)
        elif pid in groups:
            groups.remove(pid)
    for group in reversed(groups):
        end_group(group)


if __name__ == "__main__":
    main()
