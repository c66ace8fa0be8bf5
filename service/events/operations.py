"""The rules of events: a page of them, and a stream that ends with the job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from ascribe.errors import NotFound, QueueUnavailable
from ascribe.event import MAX_EVENTS, Event, EventType
from ascribe.ledger.base import Ledger, Pulse
from service.events.schemas import EventList, EventsQuery
from service.watch import Watch

HEARTBEAT_SECONDS = 15.0
"""Proxies close a connection on which nothing moves, mostly after 30 s or a minute."""
LAST = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED})


def page(job_id: str, query: EventsQuery, ledger: Ledger) -> EventList:
    """Raises NotFound."""
    found = ledger.events(job_id, after=query.after, limit=query.limit + 1)
    events = tuple(found[: query.limit])
    return EventList(
        data=events,
        has_more=len(found) > query.limit,
        first_id=events[0].id if events else None,
        last_id=events[-1].id if events else None,
    )


def nothing_to_come(job_id: str, after: int, ledger: Ledger) -> bool:
    """Whether the job has ended and all its events were seen. Raises NotFound."""
    (pulse,) = ledger.pulses([job_id])
    return not ledger.events(job_id, after=after, limit=1) and pulse is not None and pulse.status.terminal


async def stream(
    job_id: str, after: int, ledger: Ledger, watch: Watch, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[bytes]:
    """Events as server-sent ones, from ``after`` on to the one that ends the job; between them a comment now and then.

    It also ends when the job is deleted or the service stops: a client that comes again with the last id goes on.
    """
    with watch.following():
        while not watch.stopping:
            events = await _read(job_id, after, ledger)
            for event in events or ():
                yield format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.id))
                after = event.id
            if events is None or any(event.type in LAST for event in events):
                return
            if not await watch.until(job_id, partial(_is_news, after), heartbeat_seconds):
                yield KEEPALIVE_COMMENT


def _is_news(after: int, pulse: Pulse | None) -> bool:
    return pulse is None or pulse.events > after


async def _read(job_id: str, after: int, ledger: Ledger) -> list[Event] | None:
    """None when the job is gone; nothing while the ledger does not answer."""
    try:
        return list(await run_in_threadpool(ledger.events, job_id, after=after, limit=MAX_EVENTS))
    except NotFound:
        return None
    except QueueUnavailable:
        return []
