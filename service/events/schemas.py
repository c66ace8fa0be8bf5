"""Query and body of the event endpoint. An event itself is :class:`ascribe.event.Event`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ascribe.event import MAX_EVENTS, Event

LARGEST_ID = 2**53
"""JSON numbers are exact up to here, and so are a stream's ids in Redis."""


class EventsQuery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    after: int = Field(default=0, ge=0, le=LARGEST_ID, description="`last_id` of the page before.")
    limit: int = Field(default=100, ge=1, le=MAX_EVENTS, description="Events of one page; a stream has no pages.")


class EventList(BaseModel):
    model_config = ConfigDict(frozen=True)

    object: Literal["list"] = "list"
    data: tuple[Event, ...] = Field(description=f"In order. The latest {MAX_EVENTS} are kept.")
    has_more: bool
    first_id: int | None
    last_id: int | None
