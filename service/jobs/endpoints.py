"""HTTP of jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Query, Response, status

from ascribe.job import Job
from ascribe.spec import JobSpec
from service.dependencies import JobId, LedgerDep, SettingsDep, UpkeepDep, json_body
from service.documentation import header, problems
from service.jobs import dry_run, operations
from service.jobs.schemas import JSON_EXAMPLE, JobList, JobsQuery, Validation

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
_RETRY = header("Retry-After", "Seconds until asking again is worth it; absent when the job has ended.")


@router.post(
    "/jobs",
    operation_id="create_job",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Depends(json_body)],
    responses={
        202: {"description": "The job is queued.", "headers": header("Location", "Where the job is.") | _RETRY},
        200: {
            "model": Job,
            "description": "The Idempotency-Key was used before: the job it made, in its present state.",
            "headers": header("Location", "Where the job is.") | _RETRY,
        },
        **problems(400, 401, 413, 415, 422, 503),
    },
)
def create_job(
    spec: SpecBody,
    response: Response,
    ledger: LedgerDep,
    upkeep: UpkeepDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Job:
    """Submit an attribution job: which of these train rows made the model behave like that on those validation rows?

    The answer comes at once, with the job's id; the scores are there when its status is `succeeded`.
    """
    created = operations.submit(spec, idempotency_key, ledger=ledger, upkeep=upkeep, settings=settings)
    if created.replayed:
        response.status_code = status.HTTP_200_OK
    response.headers["Location"] = f"/v1/jobs/{created.job.id}"
    _ask_again(created.job, response)
    return created.job


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
    responses={200: {"headers": _RETRY}, **problems(401, 404, 503)},
)
def get_job(job_id: JobId, response: Response, ledger: LedgerDep) -> Job:
    """The job as it stands: status, progress, and in the end its result or its error."""
    job = ledger.get(job_id)
    _ask_again(job, response)
    return job


@router.post(
    "/jobs/{job_id}:cancel",
    operation_id="cancel_job",
    status_code=status.HTTP_202_ACCEPTED,
    responses={202: {"headers": _RETRY}, **problems(401, 404, 503)},
)
def cancel_job(job_id: JobId, response: Response, ledger: LedgerDep) -> Job:
    """Ask the job to stop. A queued one stops at once, a running one within a batch; an ended one stays as it is."""
    job = ledger.request_cancel(job_id)
    _ask_again(job, response)
    return job


@router.delete(
    "/jobs/{job_id}",
    operation_id="delete_job",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(401, 404, 409, 503),
)
def delete_job(job_id: JobId, ledger: LedgerDep) -> None:
    """Remove an ended job and its scores. Cached gradients stay with the workers."""
    ledger.delete(job_id)


def _ask_again(job: Job, response: Response) -> None:
    if not job.status.terminal:
        response.headers["Retry-After"] = POLL_SECONDS
