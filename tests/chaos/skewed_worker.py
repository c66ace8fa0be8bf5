"""The no-op worker on a host whose clock is wrong by ``FAULT_CLOCK_SECONDS``: parent and child alike."""

from __future__ import annotations

from tests.support.faults import clock  # isort: skip  # before anything asks for the time
from tests.chaos.noop_worker import app

__all__ = ["app"]

app.conf.include = [clock.__name__, *app.conf.include]
