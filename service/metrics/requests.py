"""What is measured and said about every request: one observation, one line in the log."""

from __future__ import annotations

import logging
import time
from http import HTTPMethod

from prometheus_client import CollectorRegistry, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("ascribe.access")

BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
CLIENT_GONE = 499
"""As nginx logs a client that went away before there was an answer."""
QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset(HTTPMethod)


class RequestMetrics:
    """One histogram in the application's own registry: nothing is shared by what runs in one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "ascribe_http_request_duration_seconds",
            "Until the answer began; that of a client that asked to wait is held back.",
            ["method", "route", "status"],
            registry=registry,
            buckets=BOUNDS,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        # Methods and paths are the caller's to invent; labels are not.
        self._seconds.labels(method if method in _METHODS else "other", route, str(status)).observe(seconds)


class AccessLog:
    """Around everything else, so that what it tells is what the client saw."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, answered = CLIENT_GONE, None

        async def send_and_note(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter()
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            ended = time.perf_counter()
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.observe(scope["method"], route, status, (answered or ended) - began)
            level = logging.DEBUG if route in QUIET_ROUTES and status < CLIENT_GONE else logging.INFO
            log.log(level, "request", extra=_facts(scope, route, status, ended - began))


def _facts(scope: Scope, route: str, status: int, seconds: float) -> dict[str, object]:
    """No path and no query: they are the caller's words. The job's id is one of ours."""
    facts = {
        "request_id": scope.get("state", {}).get("request_id"),
        "method": scope["method"] if scope["method"] in _METHODS else "other",
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    job_id = scope.get("path_params", {}).get("job_id")
    return facts | ({"job_id": job_id} if job_id else {})
