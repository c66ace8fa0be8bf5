"""HTTP of results."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from service.dependencies import JobId, LedgerDep
from service.documentation import problems
from service.results import operations, report
from service.results.schemas import JobSummary, ScorePage, ScoresQuery

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])


@router.get("/scores", operation_id="get_scores", responses=problems(400, 401, 404, 410, 422, 503))
def get_scores(job_id: JobId, query: Annotated[ScoresQuery, Query()], ledger: LedgerDep) -> ScorePage:
    """Scores of the train rows with their texts: all in row order, or from the top of either end."""
    return operations.score_page(job_id, query, ledger)


@router.get("/summary", operation_id="get_summary", responses=problems(401, 404, 503))
def get_summary(job_id: JobId, ledger: LedgerDep) -> JobSummary:
    """The mean score at a glance, and how accurately the inverse was solved: flat arrays for dashboards."""
    return operations.summary(job_id, ledger)


@router.get("/report", operation_id="get_report", response_class=HTMLResponse, responses=problems(401, 404, 503))
def get_report(job_id: JobId, ledger: LedgerDep) -> HTMLResponse:
    """One self-contained HTML page: what was found, how far to trust it, and the spec to run it again."""
    job, manifest = operations.finished(job_id, ledger)
    page = report.render(job, manifest)
    return HTMLResponse(page, headers={"Content-Security-Policy": report.content_security_policy()})
