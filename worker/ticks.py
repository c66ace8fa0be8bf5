"""The pulse of long computations: loops call :func:`tick`, whoever runs them decides what a tick does.

Numerics know neither progress nor cancelling. A reporter listens while a phase is open, so a solve that works for
minutes in one block is seen to be alive, and can be ended, between two of its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[], None] | None] = ContextVar("tick listener", default=None)


def tick() -> None:
    """One step of a loop is done. Whatever the listener raises ends the loop."""
    listener = _listener.get()
    if listener is not None:
        listener()


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """``listener`` hears every tick of the work inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
