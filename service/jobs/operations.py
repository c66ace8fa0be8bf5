"""The rules of jobs. What needs no ledger is in ``checks``, the dry run in ``dry_run``."""

from __future__ import annotations

import logging
import re

from starlette.concurrency import run_in_threadpool

from ascribe.errors import Conflict, StorageFailed
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
    # Of the parsed body: spelling out a default or reordering fields is still the same request.
    key = _key(idempotency_key, "/v1/jobs", spec.model_dump(mode="json"))
    if key and (earlier := ledger.replayed(key)):
        return Created(earlier, replayed=True)
    check(spec, settings, read_files=False)
    return _create(spec, key, ledger, upkeep)


def retry(
    job_id: str, idempotency_key: str | None, *, ledger: Ledger, upkeep: Upkeep, settings: ServiceSettings
) -> Created:
    """Submit an ended job's spec again, as a job of its own; a query's too. Raises NotFound, Conflict, as submit."""
    key = _key(idempotency_key, f"/v1/jobs/{job_id}:retry", None)
    if key and (earlier := ledger.replayed(key)):
        return Created(earlier, replayed=True)
    status = ledger.get(job_id).status
    if not status.terminal:
        raise Conflict(f"The job is {status}: only one that has ended can be tried again. Cancel it first, or wait.")
    spec = ledger.spec(job_id)
    check(spec, settings, read_files=False)
    return _create(spec, key, ledger, upkeep, retry_of=job_id)


def _key(given: str | None, path: str, body: object) -> IdempotencyKey | None:
    if given is None:
        return None
    return IdempotencyKey(given, fingerprint({"method": "POST", "path": path, "body": body}))


def _create(
    spec: JobSpec, key: IdempotencyKey | None, ledger: Ledger, upkeep: Upkeep, *, retry_of: str | None = None
) -> Created:
    created = ledger.create(new_job_id(), spec, key, retry_of=retry_of)
    facts = {"job_id": created.job.id, "replayed": created.replayed} | ({"retry_of": retry_of} if retry_of else {})
    log.info("job submitted", extra=facts)
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
