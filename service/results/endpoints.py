"""HTTP of results."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import HTMLResponse

from service.dependencies import FilesDep, JobId, LedgerDep, RankingsDep, SettingsDep
from service.documentation import header, problems
from service.download import Download
from service.etag import IfNoneMatch, etag, not_modified, unchanged
from service.results import formats, operations, report
from service.results.formats import MEDIA_TYPES
from service.results.paging import score_page
from service.results.schemas import JobSummary, ScorePage, ScoresQuery
from service.results.selection import select

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])


TAG = header("ETag", "Of this answer; results never change.")
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "You have it already.", "headers": TAG}}
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
            "headers": header("Content-Disposition", "Of a file: its name.") | TAG,
        },
        **UNCHANGED,
        **problems(400, 401, 404, 406, 410, 422, 500, 503),
    },
)
def get_scores(
    job_id: JobId,
    query: Annotated[ScoresQuery, Query()],
    ledger: LedgerDep,
    files: FilesDep,
    rankings: RankingsDep,
    settings: SettingsDep,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Scores of the train rows with their texts: in row order, or from the top of either end.

    JSON comes in pages. NDJSON, CSV, Parquet and Arrow come whole, streamed; `vector=all` is for these.
    """
    form = formats.choose(query, accept)
    job, manifest = operations.finished(job_id, ledger)
    table = select(job, manifest, query, ledger, files)
    tag = etag(job.id, job.revision, form, query.model_dump_json())
    if unchanged(if_none_match, tag):
        return not_modified(tag, Vary="Accept")
    headers = {"ETag": tag, "Vary": "Accept"}
    if form == "json":
        page = score_page(table, query, rankings).model_dump_json()
        return Response(page, media_type=MEDIA_TYPES[form], headers=headers)
    formats.check_file(query, form, table)
    return Download(
        formats.encode(form, table, rankings),
        media_type=MEDIA_TYPES[form],
        headers={**headers, "Content-Disposition": f'attachment; filename="{formats.file_name(form, table)}"'},
        patience_seconds=settings.slow_reader_seconds,
    )


@router.get(
    "/summary",
    operation_id="get_summary",
    response_model=JobSummary,
    responses={200: {"headers": TAG}, **UNCHANGED, **problems(401, 404, 503)},
)
def get_summary(
    job_id: JobId, ledger: LedgerDep, response: Response, if_none_match: IfNoneMatch = None
) -> JobSummary | Response:
    """The mean score at a glance, and how accurately the inverse was solved: flat arrays for dashboards."""
    job, manifest = operations.finished(job_id, ledger)
    tag = response.headers["ETag"] = etag(job.id, job.revision, "summary")
    return not_modified(tag) if unchanged(if_none_match, tag) else operations.summary(job_id, manifest)


@router.get(
    "/report",
    operation_id="get_report",
    response_class=HTMLResponse,
    responses={200: {"headers": TAG}, **UNCHANGED, **problems(401, 404, 503)},
)
def get_report(job_id: JobId, ledger: LedgerDep, if_none_match: IfNoneMatch = None) -> Response:
    """One self-contained HTML page: what was found, how far to trust it, and the spec to run it again."""
    job, manifest = operations.finished(job_id, ledger)
    tag = etag(job.id, job.revision, "report")
    if unchanged(if_none_match, tag):
        return not_modified(tag)
    page = report.render(job, manifest)
    return HTMLResponse(page, headers={"Content-Security-Policy": report.content_security_policy(), "ETag": tag})
