"""How a worker that is told to stop comes to hand its job back at the next batch.

SIGTERM reaches Celery's parent process, alone or with its whole group; what works is the one child of its pool. The
parent tells the child by a signal of its own, so that a SIGTERM to the child can keep its meaning: the first one
drains, the second one ends it at once, whatever it is doing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence

from celery.worker import state

NOTICE = signal.SIGURG
"""From the parent. Nobody else sends it, and a process that does not listen yet is not harmed by it."""
TELL_EVERY_SECONDS = 0.5
KILLED = 70

told = threading.Event()
"""Set in the child: the work ends at the next batch, and nothing new is begun."""


def listen() -> None:
    """Hear of it from now on. To be called in the child's main thread while it is the only one.

    The signals are blocked and a thread waits for them: billiard puts its own handler of SIGTERM in place of any
    other, and what the child starts (a reader of a file) inherits the mask, so that a signal to the group spares it.
    """
    signal.signal(NOTICE, lambda *_: None)  # some systems drop a signal that nobody handles, even a blocked one
    signal.pthread_sigmask(signal.SIG_BLOCK, {NOTICE, signal.SIGTERM})
    threading.Thread(target=_listen, name="draining", daemon=True).start()


def refuse() -> None:
    """End this process if it was told to, the message going back into the queue: for another worker, or for the child
    that takes this one's place where the parent was not told."""
    if told.is_set():
        raise SystemExit(0)


def _listen() -> None:
    terms = 0
    while True:
        terms += signal.sigwait({NOTICE, signal.SIGTERM}) == signal.SIGTERM
        told.set()
        if terms > 1:
            os._exit(KILLED)


class Telling(threading.Thread):
    """In the parent: tells the children again and again, for one may just be starting and not listen yet."""

    def __init__(self) -> None:
        super().__init__(name="telling", daemon=True)
        self._children: Sequence[int] = ()
        self._begun = threading.Event()

    def begin(self, children: Sequence[int]) -> None:
        """Said a second time, it ends them. Safe in a signal handler."""
        if self._begun.is_set():
            _send(self._children, signal.SIGKILL)
            return
        self._children = children
        self._begun.set()

    def run(self) -> None:
        self._begun.wait()
        while True:
            _send(self._children, signal.SIGKILL if state.should_terminate else NOTICE)
            time.sleep(TELL_EVERY_SECONDS)


def _send(children: Sequence[int], number: int) -> None:
    for pid in children:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it has ended, as it was told
