"""HTTP of selections."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from service.dependencies import FilesDep, JobId, LedgerDep, SettingsDep
from service.documentation import header, problems
from service.download import Download
from service.errors import NotAcceptable
from service.etag import IfNoneMatch, etag, not_modified, unchanged
from service.negotiation import preferred
from service.results.operations import finished
from service.selection import operations
from service.selection.schemas import SelectionQuery, SelectionSummary

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])

JSON, NDJSON = "application/json", "application/x-ndjson"
_TAG = header("ETag", "Of this answer; results never change.")
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What is selected as JSON, or the rows as NDJSON.",
        "model": SelectionSummary,
        "content": {NDJSON: {"schema": {"type": "string", "format": "binary"}}},
        "headers": header("Content-Disposition", "Of a file: its name.") | _TAG,
    },
    304: {"description": "You have it already.", "headers": _TAG},
}


@router.get(
    "/selection",
    operation_id="get_selection",
    response_class=Response,
    responses={**_RESPONSES, **problems(401, 404, 406, 409, 410, 422, 500, 503)},
)
def get_selection(
    job_id: JobId,
    query: Annotated[SelectionQuery, Query()],
    ledger: LedgerDep,
    files: FilesDep,
    settings: SettingsDep,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The best train rows by score, whole and ready for a trainer: as their source has them, with `score` and `rank`.

    The source is read again, and must still hold the rows that were scored (409). Columns that the job did not read are
    not in the answer: join them by `id`.
    """
    kind = {"json": JSON, "ndjson": NDJSON}.get(query.format or "") or preferred(accept, (JSON, NDJSON))
    if kind is None:
        raise NotAcceptable(f"A selection is offered as {JSON} and {NDJSON}: name one in Accept.")
    job, manifest = finished(job_id, ledger)
    tag = etag(job.id, job.revision, kind, query.model_dump_json())
    if unchanged(if_none_match, tag):
        return not_modified(tag, Vary="Accept")
    headers = {"ETag": tag, "Vary": "Accept"}
    selection = operations.make(job, manifest, query, ledger=ledger, files=files, settings=settings)
    if kind == JSON:
        return Response(selection.summary().model_dump_json(), media_type=JSON, headers=headers)
    return Download(
        selection.lines(),
        media_type=NDJSON,
        headers={**headers, "Content-Disposition": f'attachment; filename="{job.id}-selection.jsonl"'},
        patience_seconds=settings.slow_reader_seconds,
    )
