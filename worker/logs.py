"""A worker's lines go where all of ours go: Celery asks here before it sets up its own, in the worker and its child."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import celeryd_init, setup_logging

from ascribe import logs
from ascribe.settings import WorkerSettings

SAID_BY_US = ("celery.app.trace", "celery.worker.strategy")
"""Tasks that come and go: our own lines tell it with the job's id."""


@celeryd_init.connect  # type: ignore[untyped-decorator]  # the worker's first words come before it sets up its logs
@setup_logging.connect  # type: ignore[untyped-decorator]  # celery has no annotations
def configure(**_: Any) -> None:
    settings = WorkerSettings()
    logs.configure(settings.log_format, settings.log_level)
    for name in SAID_BY_US:
        logging.getLogger(name).setLevel(logging.WARNING)
