"""HTTP of results."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import HTMLResponse

from service.dependencies import JobId, LedgerDep, RankingsDep, SettingsDep
from service.documentation import header, problems
from service.download import Download
from service.results import formats, operations, report
from service.results.formats import MEDIA_TYPES
from service.results.paging import score_page
from service.results.schemas import JobSummary, ScorePage, ScoresQuery
from service.results.selection import select

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])


_AS_FILE = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/scores",
    operation_id="get_scores",
    response_class=Response,
    responses={
        200: {
            "description": "A page as JSON, or every row that is asked for as a file.",
            "model": ScorePage,
            "content": {media_type: _AS_FILE for name, media_type in MEDIA_TYPES.items() if name != "json"},
            "headers": header("Content-Disposition", "Of a file: its name."),
        },
        **problems(400, 401, 404, 406, 410, 422, 503),
    },
)
def get_scores(
    job_id: JobId,
    query: Annotated[ScoresQuery, Query()],
    ledger: LedgerDep,
    rankings: RankingsDep,
    settings: SettingsDep,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Scores of the train rows with their texts: in row order, or from the top of either end.

    JSON comes in pages. NDJSON, CSV, Parquet and Arrow come whole, streamed; `vector=all` is for these.
    """
    form = formats.choose(query, accept)
    table = select(*operations.finished(job_id, ledger), query, ledger)
    if form == "json":
        page = score_page(table, query, rankings).model_dump_json()
        return Response(page, media_type=MEDIA_TYPES[form], headers={"Vary": "Accept"})
    formats.check_file(query, form, table)
    return Download(
        formats.encode(form, table, rankings),
        media_type=MEDIA_TYPES[form],
        headers={"Vary": "Accept", "Content-Disposition": f'attachment; filename="{formats.file_name(form, table)}"'},
        patience_seconds=settings.slow_reader_seconds,
    )


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
