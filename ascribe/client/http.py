"""One request to the API: retried where that is safe and useful, its errors typed.

What may be tried again is: connection errors, 429, 502, 503 and 504, within ``retry_seconds`` and as ``Retry-After``
asks. Every request of the API is safe to repeat: creating a job carries an idempotency key, cancelling twice is
cancelling once.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import httpx
import stamina
from pydantic import TypeAdapter, ValidationError

from ascribe.client.errors import (
    ApiError,
    ClientError,
    NoConnection,
    NotFound,
    TooMany,
    Unavailable,
    UnexpectedReply,
    api_error,
    bare_problem,
)
from ascribe.job import JobError

T = TypeVar("T")

FIRST_CONTACT_SECONDS = 2.0
"""How long a refused connection is retried before the API has answered once: longer, and a wrong address looks hung."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Never asked through a proxy, whatever the environment says of proxies."""


class Connection:
    """An httpx client for one API that retries and raises typed errors."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None,
        timeout: float,
        retry_seconds: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = _checked(url)
        self._retry_seconds = retry_seconds
        self._answered = False
        headers = {"User-Agent": "ascribe-client"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._http = httpx.Client(
            base_url=self._url,
            headers=headers,
            timeout=timeout,
            transport=transport,
            trust_env=httpx.URL(self._url).host not in LOOPBACK,
        )

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The reply, always a successful one. Raises the errors of :mod:`ascribe.client.errors`."""
        started = time.monotonic()
        repeated = False

        def may_retry(error: Exception) -> bool | float:
            return self._may_retry(error, time.monotonic() - started)

        for attempt in stamina.retry_context(on=may_retry, attempts=None, timeout=self._retry_seconds):
            with attempt:
                try:
                    return self.send_once(method, path, **request)
                except NotFound:
                    if method == "DELETE" and repeated:
                        return httpx.Response(204)  # the first try got through; only its reply was lost
                    raise
                finally:
                    repeated = True
        raise AssertionError("unreachable: the last attempt returns or raises")

    def send_once(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.ConnectError as error:
            raise NoConnection(
                f"no Ascribe API answers at {self._url}: start one here with `ascribe up`, or set ASCRIBE_URL"
            ) from error
        except httpx.TransportError as error:
            raise NoConnection(f"{self._url} did not finish its reply ({type(error).__name__})") from error
        self._answered = True
        if response.is_success:
            return response
        raise _error_of(response)

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


def parse(kind: type[T], response: httpx.Response) -> T:
    """The reply's body as ``kind``. Raises UnexpectedReply."""
    # A newer server may send fields this client does not know: they are ignored here, though refused in a spec.
    try:
        return TypeAdapter(kind).validate_json(response.content, extra="ignore")
    except ValidationError as error:
        where = "/".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise UnexpectedReply(
            f"the reply to {response.request.method} {response.request.url.path} is not an Ascribe API's "
            f"(at /{where}): check the address, or upgrade the older side"
        ) from None


def retry_after(response: httpx.Response) -> float | None:
    """Seconds the API asks to wait."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:  # absent, or the date form, which Ascribe does not send
        return None


def _error_of(response: httpx.Response) -> ApiError:
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
