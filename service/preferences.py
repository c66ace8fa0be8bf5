"""``Prefer: wait=N`` (RFC 7240): how long a client would rather wait for an answer than ask again."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header

LONGEST_WAIT_SECONDS = 60
_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;.*)?", re.IGNORECASE)


async def _wait_seconds(
    prefer: Annotated[
        str | None,
        Header(description=f"`wait=N`: hold the answer back for up to N seconds, {LONGEST_WAIT_SECONDS} at most."),
    ] = None,
) -> int | None:
    """Seconds, or None. A preference that cannot be read is ignored, as the RFC asks."""
    for preference in (prefer or "").split(","):
        if match := _WAIT.fullmatch(preference):
            return min(int(match[1]), LONGEST_WAIT_SECONDS)
    return None


WaitSeconds = Annotated[int | None, Depends(_wait_seconds)]
