"""What every reply goes through, however it was awaited: typed errors, and which of them are worth another try.

Tried again are connection errors, 429, 502, 503 and 504, within ``retry_seconds`` and as ``Retry-After`` asks. Every
request of the API is safe to repeat: creating a job carries an idempotency key, cancelling twice is cancelling once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from pydantic import ValidationError

from ascribe.client.errors import (
    ApiError,
    ClientError,
    NoConnection,
    TooMany,
    Unavailable,
    api_error,
    bare_problem,
)
from ascribe.client.messages import Request
from ascribe.job import JobError

FIRST_CONTACT_SECONDS = 2.0
"""How long a refused connection is retried before the API has answered once: longer, and a wrong address looks hung."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Never asked through a proxy, whatever the environment says of proxies."""


class Policy:
    """How one API is spoken to. ``api_key``: left out, ``ASCRIBE_API_KEY``.

    Raises ClientError where ``url`` is no address.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout: float, retry_seconds: float) -> None:
        self.url = _checked(url)
        self._key = api_key or os.environ.get("ASCRIBE_API_KEY")
        self._timeout = timeout
        self._retry_seconds = retry_seconds
        self._answered = False

    @property
    def http_options(self) -> dict[str, Any]:
        """Arguments of ``httpx.Client`` and ``httpx.AsyncClient``."""
        headers = {"User-Agent": "ascribe-client"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": self._timeout,
            "trust_env": httpx.URL(self.url).host not in LOOPBACK,
        }

    def request_options(self, request: Request[Any]) -> dict[str, Any]:
        """Arguments of ``build_request`` but for the body in pieces."""
        return {
            "method": request.method,
            "url": request.path,
            "params": dict(request.params),
            "headers": dict(request.headers),
            "json": request.json,
            "timeout": self._timeout + request.patience_seconds,
        }

    @property
    def retry_options(self) -> dict[str, Any]:
        """Arguments of ``stamina.retry_context`` for one request that starts now."""
        started = time.monotonic()
        return {
            "on": lambda error: self._may_retry(error, time.monotonic() - started),
            "attempts": None,
            "timeout": self._retry_seconds,
        }

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        """Around whatever touches the network."""
        try:
            yield
        except httpx.ConnectError as error:
            raise NoConnection(
                f"no Ascribe API answers at {self.url}: start one here with `ascribe up`, or set ASCRIBE_URL"
            ) from error
        except httpx.TransportError as error:
            raise NoConnection(f"{self.url} did not finish its reply ({type(error).__name__})") from error

    def is_good(self, response: httpx.Response, *, repeated: bool) -> bool:
        """Whether the reply is the answer; otherwise its body is to be read, and :func:`error_of` raised."""
        self._answered = True
        # A repeated DELETE that finds nothing: the first try got through, and only its reply was lost.
        deleted = repeated and response.request.method == "DELETE" and response.status_code == httpx.codes.NOT_FOUND
        return response.is_success or response.status_code == httpx.codes.NOT_MODIFIED or deleted

    def _may_retry(self, error: Exception, elapsed: float) -> bool | float:
        """Whether to try again, or after how many seconds."""
        if isinstance(error, NoConnection):
            return self._answered or elapsed < FIRST_CONTACT_SECONDS
        if isinstance(error, TooMany | Unavailable):
            wait = error.retry_after
            if wait is None:
                return True
            return wait if elapsed + wait <= self._retry_seconds else False
        return False


def retry_after(response: httpx.Response) -> float | None:
    """Seconds the API asks to wait."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:  # absent, or the date form, which Ascribe does not send
        return None


def error_of(response: httpx.Response) -> ApiError:
    """The problem that the reply, whose body has been read, reports."""
    try:
        problem = JobError.model_validate_json(response.content, extra="ignore")
    except ValidationError:
        problem = bare_problem(response.status_code, response.reason_phrase)
    return api_error(problem, retry_after=retry_after(response))


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ClientError("the API's address must be like http://127.0.0.1:8000: check ASCRIBE_URL or --url")
    return url.rstrip("/")
