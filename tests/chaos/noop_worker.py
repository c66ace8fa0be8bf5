"""The real Celery application, for workers whose work is :mod:`tests.chaos.noop_work`: ready in about a second.

celery -A tests.chaos.noop_worker worker --without-gossip --without-mingle
"""

from __future__ import annotations

from tests.chaos import noop_work
from worker.app import app

__all__ = ["app"]

# The pool's child is a fresh interpreter: it learns of the other work by importing what the application includes.
app.conf.include = [*app.conf.include, noop_work.__name__]
