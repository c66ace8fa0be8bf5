"""Sends requests and waits in place; :mod:`ascribe.client.async_http` is the same for an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import stamina

from ascribe.client.messages import Request
from ascribe.client.policy import Policy, error_of

T = TypeVar("T")


class Connection:
    """An httpx client for one API that retries and raises typed errors."""

    def __init__(self, policy: Policy, transport: httpx.BaseTransport | None) -> None:
        self._policy = policy
        self._http = httpx.Client(transport=transport, **policy.http_options)

    def close(self) -> None:
        self._http.close()

    def send(self, request: Request[T]) -> T:
        """The answer, read whole. Raises the errors of :mod:`ascribe.client.errors`."""
        for attempt in stamina.retry_context(**self._policy.retry_options):
            with attempt:
                return self.send_once(request, repeated=attempt.num > 1)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def send_once(self, request: Request[T], *, repeated: bool = False) -> T:
        with self._policy.typed_errors():
            response = self._open(request, repeated=repeated)
            response.read()
        return request.parse(response)

    @contextmanager
    def stream(self, request: Request[Any]) -> Iterator[Iterator[bytes]]:
        """The answer's body in pieces as they come. Only opening is retried: a reply that breaks off raises."""
        response = self._open_retried(request)
        try:
            request.parse(response)
            yield self._pieces(response)
        finally:
            response.close()

    def _open_retried(self, request: Request[Any]) -> httpx.Response:
        for attempt in stamina.retry_context(**self._policy.retry_options):
            with attempt, self._policy.typed_errors():
                return self._open(request, repeated=attempt.num > 1)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _open(self, request: Request[Any], *, repeated: bool) -> httpx.Response:
        content = request.content() if request.content else None
        built = self._http.build_request(content=content, **self._policy.request_options(request))
        response = self._http.send(built, stream=True)
        if self._policy.is_good(response, repeated=repeated):
            return response
        response.read()
        raise error_of(response)

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        with self._policy.typed_errors():
            yield from response.iter_bytes()
