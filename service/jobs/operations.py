"""The rules of jobs. What needs no ledger is in ``checks``, the dry run in ``dry_run``."""

from __future__ import annotations

import logging
import re

from starlette.concurrency import run_in_threadpool

from ascribe.errors import StorageFailed
from ascribe.fingerprint import fingerprint
from ascribe.job import JOB_ID_PATTERN, Job
from ascribe.ledger.base import Created, IdempotencyKey, JobFilter, Ledger, Pulse
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.upkeep import Upkeep
from ascribe.settings import ServiceSettings
from ascribe.spec import JobSpec
from ascribe.store.remote import Remote
from ascribe.view import SpecView
from service.errors import BadCursor
from service.jobs.checks import check
from service.jobs.schemas import JobList, JobsQuery
from service.watch import Watch

log = logging.getLogger(__name__)


def submit(
    spec: JobSpec, idempotency_key: str | None, *, ledger: Ledger, upkeep: Upkeep, settings: ServiceSettings
) -> Created:
    """Check, record, and have the bell rung. A spec that is refused is not remembered under its key."""
    key = None
    if idempotency_key is not None:
        # Of the parsed body: spelling out a default or reordering fields is still the same request.
        body = {"method": "POST", "path": "/v1/jobs", "body": spec.model_dump(mode="json")}
        key = IdempotencyKey(idempotency_key, fingerprint(body))
        if earlier := ledger.replayed(key):
            return Created(earlier, replayed=True)
    check(spec, settings, read_files=False)
    created = ledger.create(new_job_id(), spec, key)
    log.info("job submitted", extra={"job_id": created.job.id, "replayed": created.replayed})
    upkeep.nudge()
    return created


def with_rows(job: Job, ledger: Ledger) -> Job:
    """The job with the inline rows that it was submitted with."""
    return job.model_copy(update={"spec": SpecView.of(ledger.spec(job.id), rows=True)})


async def held(job: Job, seconds: float, ledger: Ledger, watch: Watch, *, any_change: bool = False) -> Job:
    """The job as it stands when it has ended, or with ``any_change`` when it is another; or after ``seconds``."""

    def wanted(pulse: Pulse | None) -> bool:
        return pulse is None or pulse.status.terminal or (any_change and pulse.revision != job.revision)

    if job.status.terminal:
        return job
    with watch.following():
        await watch.until(job.id, wanted, seconds)
    return await run_in_threadpool(ledger.get, job.id)


def delete(job_id: str, ledger: Ledger, files: Remote) -> None:
    """The record, every score, and the file of them where there is one. Raises NotFound, Conflict."""
    result = ledger.get(job_id).result
    ledger.delete(job_id)
    if result is not None and result.stored is not None:
        try:
            files.delete(result.stored.name)
        except StorageFailed as error:  # nothing leads to it any more
            log.warning("a file of vectors is left to the sweep", extra={"job_id": job_id, "detail": error.detail})


def list_jobs(query: JobsQuery, ledger: Ledger) -> JobList:
    """One page. Raises BadCursor."""
    if query.after is not None and not re.match(JOB_ID_PATTERN, query.after):
        raise BadCursor("'after' must be the last_id of an earlier page.")
    wanted = JobFilter(query.status, query.model, query.labels, query.query_of)
    page = ledger.list(wanted, after=query.after, limit=query.limit)
    return JobList(
        data=page.jobs,
        has_more=page.has_more,
        first_id=page.jobs[0].id if page.jobs else None,
        last_id=page.jobs[-1].id if page.jobs else None,
    )
