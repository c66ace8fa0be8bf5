"""HTTP of jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Query, Response, status
from starlette.concurrency import run_in_threadpool

from ascribe.errors import NotReady
from ascribe.job import Job
from ascribe.ledger.base import Created, Ledger
from ascribe.spec import JobSpec
from service.dependencies import FilesDep, JobId, LedgerDep, SettingsDep, UpkeepDep, WatchDep, json_body
from service.documentation import header, problems
from service.etag import IfNoneMatch, etag, unchanged
from service.jobs import dry_run, operations
from service.jobs.schemas import JSON_EXAMPLE, JobList, JobsQuery, Validation
from service.preferences import WaitSeconds
from service.watch import Watch

POLL_SECONDS = "1"

router = APIRouter(prefix="/v1", tags=["jobs"])

SpecBody = Annotated[
    JobSpec,
    Body(openapi_examples={"topics-noise": {"summary": "Find wrong labels in a file of rows", "value": JSON_EXAMPLE}}),
]
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key and body give the same job again, for a day. Use a new one for a new job.",
    ),
]
Include = Annotated[
    Literal["rows"] | None,
    Query(description="`rows`: with the inline rows that the job was submitted with; left out, they are only counted."),
]
_RETRY = header("Retry-After", "Seconds until asking again is worth it; absent when the job has ended.")
_TAG = header("ETag", "Of this answer; changes with every change of the job.")
_WAITED = header("Preference-Applied", "`wait=N` where the answer was held back as asked.")
_JOB_HEADERS = _RETRY | _TAG | _WAITED
_CREATED_HEADERS = header("Location", "Where the job is.") | _JOB_HEADERS
CREATED: dict[int | str, dict[str, Any]] = {
    202: {"description": "The job is queued.", "headers": _CREATED_HEADERS},
    200: {
        "model": Job,
        "description": "The Idempotency-Key was used before: the job it made, in its present state. Or the job "
        "ended while the answer was held back.",
        "headers": _CREATED_HEADERS,
    },
}
"""Of a request that makes a job."""


@router.post(
    "/jobs",
    operation_id="create_job",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Depends(json_body)],
    responses={**CREATED, **problems(400, 401, 413, 415, 422, 429, 503)},
)
async def create_job(
    spec: SpecBody,
    response: Response,
    ledger: LedgerDep,
    upkeep: UpkeepDep,
    settings: SettingsDep,
    watch: WatchDep,
    wait_seconds: WaitSeconds,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Job:
    """Submit an attribution job: which of these train rows made the model behave like that on those validation rows?

    The answer comes at once, with the job's id; the scores are there when its status is `succeeded`. With
    `Prefer: wait=N` it is held back until the job has ended, for N seconds at most.
    """
    created = await run_in_threadpool(
        operations.submit, spec, idempotency_key, ledger=ledger, upkeep=upkeep, settings=settings
    )
    return await answer(created, response, ledger, watch, wait_seconds)


async def answer(created: Created, response: Response, ledger: Ledger, watch: Watch, wait_seconds: int | None) -> Job:
    """What a request that made a job is told: where it is, and where it asked to wait, how it ended."""
    job = created.job
    if wait_seconds is not None and not watch.full:
        job = await operations.held(job, wait_seconds, ledger, watch)
        response.headers["Preference-Applied"] = f"wait={wait_seconds}"
    if created.replayed or job.status.terminal:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    _describe(job, response)
    return job


@router.post(
    "/jobs:validate",
    operation_id="validate_job",
    dependencies=[Depends(json_body)],
    responses=problems(400, 401, 413, 415, 422, 503),
)
def validate_job(spec: SpecBody, ledger: LedgerDep, settings: SettingsDep) -> Validation:
    """A dry run: every check of submitting and the reading of all rows, then what would run. Nothing is recorded."""
    return dry_run.validate(spec, ledger=ledger, settings=settings)


@router.get("/jobs", operation_id="list_jobs", responses=problems(400, 401, 422, 503))
def list_jobs(query: Annotated[JobsQuery, Query()], ledger: LedgerDep) -> JobList:
    """Jobs, newest first. `label.<key>=<value>` keeps those whose spec carries that label."""
    return operations.list_jobs(query, ledger)


@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    response_model=Job,
    responses={
        200: {"headers": _JOB_HEADERS},
        304: {"description": "The job is still as you have it.", "headers": _JOB_HEADERS},
        **problems(401, 404, 422, 503),
    },
)
async def get_job(
    job_id: JobId,
    response: Response,
    ledger: LedgerDep,
    watch: WatchDep,
    wait_seconds: WaitSeconds,
    include: Include = None,
    if_none_match: IfNoneMatch = None,
) -> Job | Response:
    """The job as it stands: status, progress, and in the end its result or its error.

    With `Prefer: wait=N` the answer is held back until the job has ended; with `If-None-Match` as well, until it is
    another than the one you have.
    """
    job = await run_in_threadpool(ledger.get, job_id)
    same = unchanged(if_none_match, _tag(job, include))
    if wait_seconds is not None and not watch.full and (same or if_none_match is None):
        job = await operations.held(job, wait_seconds, ledger, watch, any_change=same)
        response.headers["Preference-Applied"] = f"wait={wait_seconds}"
    _describe(job, response, include)
    if unchanged(if_none_match, response.headers["ETag"]):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=dict(response.headers))  # hints included
    return await run_in_threadpool(operations.with_rows, job, ledger) if include else job


@router.get(
    "/jobs/{job_id}/completion",
    operation_id="get_completion",
    responses={200: {"headers": _TAG}, **problems(401, 404, 503)},
)
def get_completion(job_id: JobId, response: Response, ledger: LedgerDep) -> Job:
    """404 `not_ready` until the job has ended, however it ended; then the job. For `curl --retry` and sensors."""
    job = ledger.get(job_id)
    if not job.status.terminal:
        raise NotReady("The job has not ended: ask again, or get the job with 'Prefer: wait' to be told when it has.")
    _describe(job, response)
    return job


@router.post(
    "/jobs/{job_id}:cancel",
    operation_id="cancel_job",
    status_code=status.HTTP_202_ACCEPTED,
    responses={202: {"headers": _RETRY | _TAG}, **problems(401, 404, 503)},
)
def cancel_job(job_id: JobId, response: Response, ledger: LedgerDep) -> Job:
    """Ask the job to stop. A queued one stops at once, a running one within a batch; an ended one stays as it is."""
    job = ledger.request_cancel(job_id)
    _describe(job, response)
    return job


@router.post(
    "/jobs/{job_id}:retry",
    operation_id="retry_job",
    status_code=status.HTTP_202_ACCEPTED,
    responses={**CREATED, **problems(400, 401, 404, 409, 422, 429, 503)},
)
async def retry_job(
    job_id: JobId,
    response: Response,
    ledger: LedgerDep,
    upkeep: UpkeepDep,
    settings: SettingsDep,
    watch: WatchDep,
    wait_seconds: WaitSeconds,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Job:
    """Submit the spec of an ended job again, however it ended: a new job, with `retry_of`.

    Checked as if it were sent anew. What the first one has cached, its gradients above all, is used again. `Prefer:
    wait=N` as for a job.
    """
    created = await run_in_threadpool(
        operations.retry, job_id, idempotency_key, ledger=ledger, upkeep=upkeep, settings=settings
    )
    return await answer(created, response, ledger, watch, wait_seconds)


@router.delete(
    "/jobs/{job_id}",
    operation_id="delete_job",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(401, 404, 409, 503),
)
def delete_job(job_id: JobId, ledger: LedgerDep, files: FilesDep) -> None:
    """Remove an ended job and its scores. Cached gradients stay with the workers."""
    operations.delete(job_id, ledger, files)


def _describe(job: Job, response: Response, include: str | None = None) -> None:
    response.headers["ETag"] = _tag(job, include)
    if not job.status.terminal:
        response.headers["Retry-After"] = POLL_SECONDS


def _tag(job: Job, include: str | None) -> str:
    return etag(job.id, job.revision, include)
