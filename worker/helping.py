"""Help with a job that another worker owns: take parts of its work until none is left. Safe to be called twice.

The job's inputs are loaded once, after the first part was taken: who finds none, or may not share this job's work,
loads nothing. A helper leaves when a job waits in the queue, for it is called again and that job is not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

from ascribe.errors import NotFound, QueueUnavailable
from ascribe.job import JobState
from ascribe.ledger.base import LeaseLost, Part, WrongEnvironment
from ascribe.ledger.heartbeat import Heartbeat
from ascribe.logs import bound
from ascribe.spec import JobSpec
from worker import draining
from worker.attempt import Equipment, end_this_process, explain
from worker.environment import OtherInputs, differences, environment_key, worker_info, worker_name
from worker.progress import Draining
from worker.staging import Insist

PATIENCE_SECONDS = 2.0
"""A job that waits for longer finds no other worker free."""

log = logging.getLogger(__name__)


def help_with(job_id: str, equipment: Equipment) -> None:
    """Answer a call: take parts of this job, if there are any for this worker."""
    with bound(job_id=job_id):
        try:
            _Help(job_id, equipment).give()
        except WrongEnvironment:
            differs = differences(worker_info(equipment.settings), equipment.ledger.workers())
            log.info("help declined: other bits would come out here", extra={"differs": differs})
        except (LeaseLost, NotFound):
            log.info("the parts are gone")
        except QueueUnavailable as error:
            log.warning("cannot help, may be called again", extra={"detail": error.detail})


class _Help:
    """With one job."""

    def __init__(self, job_id: str, equipment: Equipment) -> None:
        self._job_id, self._equipment, self._ledger = job_id, equipment, equipment.ledger
        self._settings = equipment.settings
        self._insist = Insist(self._settings.lease_seconds)
        self._heartbeat: Heartbeat | None = None

    def give(self) -> None:
        """Raises WrongEnvironment, LeaseLost, NotFound, QueueUnavailable."""
        began, count = time.monotonic(), 0
        with ExitStack() as opened:
            do: Callable[[str], None] | None = None
            for part in self._parts():
                try:
                    with self._holding(part):
                        do = do or opened.enter_context(self._equipment.help(self._spec, self._moved))
                        do(part.name)
                except LeaseLost:
                    raise
                except Exception as raised:  # noqa: BLE001 - told by explain
                    self._give_up(part, raised)
                    break
                self._finish(part)
                count += 1
        if count:
            log.info("helped", extra={"parts": count, "seconds": round(time.monotonic() - began, 3)})

    def _parts(self) -> Iterator[Part]:
        environment = environment_key(self._settings)
        while part := self._insist(lambda: self._ledger.take(self._job_id, worker_name(), environment)):
            log.info("part taken", extra={"part": part.name})
            yield part
            if self._is_wanted_elsewhere():
                return

    def _is_wanted_elsewhere(self) -> bool:
        queue = self._insist(self._ledger.counts).queues[self._spec.queue]
        return draining.told.is_set() or queue.oldest_queued_seconds > PATIENCE_SECONDS

    @cached_property
    def _spec(self) -> JobSpec:
        return self._ledger.spec(self._job_id)

    @contextmanager
    def _holding(self, part: Part) -> Iterator[None]:
        with Heartbeat(
            lambda: self._keep(part),
            {"part": part.name},
            lease_seconds=self._settings.lease_seconds,
            every_seconds=self._settings.heartbeat_seconds,
            stall_seconds=self._settings.stall_seconds,
            on_hung=end_this_process,
        ) as self._heartbeat:
            yield

    def _keep(self, part: Part) -> None:
        """A part that is not ours any more is worked on to its end while the job goes on: its next owner, when this
        one was lost, finds the shard in the store."""
        try:
            self._ledger.keep(part)
        except LeaseLost:
            if self._ledger.get(self._job_id).status not in (JobState.QUEUED, JobState.RUNNING):
                raise

    def _moved(self, _rows: int) -> None:
        assert self._heartbeat is not None
        self._heartbeat.moved()
        if self._heartbeat.lost.is_set():
            raise LeaseLost
        if draining.told.is_set():
            raise Draining

    def _finish(self, part: Part) -> None:
        self._insist(lambda: self._ledger.finish(part))

    def _give_up(self, part: Part, raised: Exception) -> None:
        """Somebody else takes the part. If it cannot be done, the job's owner finds out, and the job fails for it."""
        self._insist(lambda: self._ledger.drop(part))
        if isinstance(raised, Draining):
            log.info("part given back: this worker is to stop")
        elif isinstance(raised, OtherInputs):
            log.warning("help declined: other files or rows are found here", extra={"part": part.name})
        else:
            error = explain(raised)
            log.warning("help failed", extra={"part": part.name, "code": error.code, "detail": error.detail})
