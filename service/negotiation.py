"""Content negotiation by the Accept header (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def preferred(accept: str | None, offered: Sequence[str]) -> str | None:
    """The offered media type that ``accept`` likes most, the earlier of equals; None where it takes none of them."""
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [parsed for item in accept.split(",") if (parsed := _parse(item))]
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    return best if _quality(best, ranges) > 0 else None


def _parse(item: str) -> tuple[str, float] | None:
    """A media range and its weight; a malformed one says nothing."""
    media_range, *parameters = (part.strip().lower() for part in item.split(";"))
    weight = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
    if "/" not in media_range or not _QUALITY.fullmatch(weight):
        return None
    return media_range, float(weight)


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight of the most specific range that covers ``media_type``."""
    kind = media_type.split("/")[0]
    for wanted in (media_type, f"{kind}/*", "*/*"):
        weights = [weight for media_range, weight in ranges if media_range == wanted]
        if weights:
            return max(weights)
    return 0
