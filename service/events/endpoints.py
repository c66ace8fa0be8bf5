"""HTTP of events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response, status
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from service.dependencies import JobId, LedgerDep, WatchDep
from service.documentation import header, problems
from service.errors import NotAcceptable, TooManyFollowers
from service.events import operations
from service.events.schemas import LARGEST_ID, EventList, EventsQuery
from service.negotiation import preferred

JSON, SSE = "application/json", "text/event-stream"

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.get(
    "/events",
    operation_id="list_events",
    response_model=EventList,
    responses={
        200: {
            "description": "A page as JSON, or a stream that ends after the event that ends the job.",
            "content": {SSE: {"schema": {"type": "string"}}},
            "headers": header("Vary", "The answer depends on Accept."),
        },
        204: {"description": "Of a stream: the job has ended and you have seen it all; do not come again."},
        **problems(401, 404, 406, 422, 503),
    },
)
async def list_events(
    job_id: JobId,
    query: Annotated[EventsQuery, Query()],
    ledger: LedgerDep,
    watch: WatchDep,
    accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    last_event_id: Annotated[
        int,
        Header(ge=0, le=LARGEST_ID, description="Of a stream: the last event you saw, where it is above `after`."),
    ] = 0,
) -> Response:
    """What happened to the job, in order: a page of JSON, or with `Accept: text/event-stream` while it happens.

    A stream may be taken up where it broke off with `Last-Event-ID`. It carries a comment every 15 seconds.
    """
    form = preferred(accept, (JSON, SSE))
    if form is None:
        raise NotAcceptable(f"Events come as {JSON} or {SSE}.")
    vary = {"Vary": "Accept"}
    if form == JSON:
        page = await run_in_threadpool(operations.page, job_id, query, ledger)
        return Response(page.model_dump_json(), media_type=JSON, headers=vary)
    after = max(query.after, last_event_id)
    if await run_in_threadpool(operations.nothing_to_come, job_id, after, ledger):
        return Response(status_code=status.HTTP_204_NO_CONTENT, headers=vary)
    if watch.full:
        raise TooManyFollowers
    return EventSourceResponse(
        operations.stream(job_id, after, ledger, watch),
        # The second one keeps nginx from holding events back.
        headers={**vary, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )
