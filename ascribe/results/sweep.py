"""Removes files that are nobody's result: of deleted and expired jobs, and of workers that were killed."""

from __future__ import annotations

import logging
import random
import threading
from datetime import UTC, datetime, timedelta

from ascribe.errors import Expired, NotFound, NotReady, QueueUnavailable, StorageFailed
from ascribe.job import Job
from ascribe.ledger.base import Ledger
from ascribe.result import TOP
from ascribe.results.files import job_of
from ascribe.store.remote import Remote

EVERY_SECONDS = 3600.0
SAFE_AGE = timedelta(hours=1)
"""A younger file is let be: most of these are results, and need not be asked about."""
MOST_FILES = 10_000
"""Files looked at in a pass, any of them: what is left over has its chance in the next."""
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


def sweep(ledger: Ledger, files: Remote, *, age: timedelta = SAFE_AGE) -> int:
    """One pass; how many files were removed.

    Raises:
        StorageFailed: the store is away.
        QueueUnavailable: nobody can say which files are needed.
    """
    before = datetime.now(UTC) - age
    old = [name for name, modified_at in files.names("") if modified_at < before]
    removed = 0
    for name in random.sample(old, min(len(old), MOST_FILES)):
        job_id = job_of(name)
        if job_id is not None and not _needed(ledger, job_id, name):
            files.delete(name)
            removed += 1
    return removed


def is_result(ledger: Ledger, job_id: str, name: str) -> bool:
    """Whether the job was committed with this file. Raises QueueUnavailable."""
    try:
        return _has_file(ledger.get(job_id), name)
    except NotFound:
        return False


def _needed(ledger: Ledger, job_id: str, name: str) -> bool:
    """Whether it is a result that can still be read, or may become one."""
    try:
        job = ledger.get(job_id)
        if not job.status.terminal:
            return True
        ledger.read_range(job_id, [TOP], 0, 1)
    except (NotFound, NotReady, Expired):
        return False
    return _has_file(job, name)


def _has_file(job: Job, name: str) -> bool:
    return job.result is not None and job.result.stored is not None and job.result.stored.name == name


class Sweeper:
    """A thread that sweeps once an hour, if no other process has."""

    def __init__(self, ledger: Ledger, files: Remote) -> None:
        self._ledger, self._files = ledger, files
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ascribe-sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits a little for a pass that is under way; it may end in the middle."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                if self._ledger.take_turn("sweep", EVERY_SECONDS):
                    removed = sweep(self._ledger, self._files)
                    log.log(logging.INFO if removed else logging.DEBUG, "results swept", extra={"removed": removed})
            except (QueueUnavailable, StorageFailed) as error:
                log.warning("results cannot be swept, will try again", extra={"detail": error.detail})
            if self._stopping.wait(EVERY_SECONDS):
                return
