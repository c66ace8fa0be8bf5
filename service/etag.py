"""Entity tags (RFC 9110, 8.8.3): whether a client has an answer already."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Header, Response, status

from ascribe import __version__

IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="ETag of the answer you have: 304 without a body where it still holds."),
]


def etag(*parts: object) -> str:
    """A strong tag of what ``parts`` determine. Another version of the service may say the same in other bytes."""
    text = "\n".join(map(str, (__version__, *parts)))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def unchanged(if_none_match: str | None, tag: str) -> bool:
    """Whether the header names ``tag``; a cache may have made the tag weak on the way."""
    given = [item.strip().removeprefix("W/") for item in (if_none_match or "").split(",")]
    return tag in given or given == ["*"]


def not_modified(tag: str, **headers: str) -> Response:
    """304 with the headers that a full answer would have for caches."""
    return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"ETag": tag, **headers})
