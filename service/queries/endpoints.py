"""HTTP of queries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response, status
from starlette.concurrency import run_in_threadpool

from ascribe.job import Job
from service.dependencies import JobId, LedgerDep, SettingsDep, UpkeepDep, WatchDep, json_body
from service.documentation import problems
from service.jobs.endpoints import CREATED, IdempotencyKeyHeader, answer
from service.preferences import WaitSeconds
from service.queries import operations
from service.queries.schemas import JSON_EXAMPLE, Query

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

QueryBody = Annotated[
    Query, Body(openapi_examples={"one-more": {"summary": "One more validation row", "value": JSON_EXAMPLE}})
]


@router.post(
    "/queries",
    operation_id="create_query",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[Depends(json_body)],
    responses={**CREATED, **problems(400, 401, 404, 409, 410, 413, 415, 422, 429, 503)},
)
async def create_query(
    job_id: JobId,
    query: QueryBody,
    response: Response,
    ledger: LedgerDep,
    upkeep: UpkeepDep,
    settings: SettingsDep,
    watch: WatchDep,
    wait_seconds: WaitSeconds,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Job:
    """Score new validation rows against the train rows of a job that succeeded, by its method.

    A job of its own, with `spec.query_of`, that starts from the gradients, the curvature and the solution which are
    kept; `result.diagnostics.reused` says what it found. It fails if model or train rows have changed since. As for a
    job, `Prefer: wait=N` holds the answer back until the scores are there.
    """
    created = await run_in_threadpool(
        operations.ask, job_id, query, idempotency_key, ledger=ledger, upkeep=upkeep, settings=settings
    )
    return await answer(created, response, ledger, watch, wait_seconds)
