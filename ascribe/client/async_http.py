"""Sends requests from an event loop; line for line what :mod:`ascribe.client.http` does in place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio.to_thread
import httpx
import stamina

from ascribe.client.messages import Request
from ascribe.client.policy import Policy, error_of

T = TypeVar("T")


class AsyncConnection:
    """An httpx client for one API that retries and raises typed errors."""

    def __init__(self, policy: Policy, transport: httpx.AsyncBaseTransport | None) -> None:
        self._policy = policy
        self._http = httpx.AsyncClient(transport=transport, **policy.http_options)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def send(self, request: Request[T]) -> T:
        """The answer, read whole. Raises the errors of :mod:`ascribe.client.errors`."""
        async for attempt in stamina.retry_context(**self._policy.retry_options):
            with attempt:
                return await self.send_once(request, repeated=attempt.num > 1)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def send_once(self, request: Request[T], *, repeated: bool = False) -> T:
        with self._policy.typed_errors():
            response = await self._open(request, repeated=repeated)
            await response.aread()
        return request.parse(response)

    @asynccontextmanager
    async def stream(self, request: Request[Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The answer's body in pieces as they come. Only opening is retried: a reply that breaks off raises."""
        response = await self._open_retried(request)
        try:
            request.parse(response)
            yield self._pieces(response)
        finally:
            await response.aclose()

    async def _open_retried(self, request: Request[Any]) -> httpx.Response:
        async for attempt in stamina.retry_context(**self._policy.retry_options):
            with attempt, self._policy.typed_errors():
                return await self._open(request, repeated=attempt.num > 1)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _open(self, request: Request[Any], *, repeated: bool) -> httpx.Response:
        content = _without_blocking(request.content()) if request.content else None
        built = self._http.build_request(content=content, **self._policy.request_options(request))
        response = await self._http.send(built, stream=True)
        if self._policy.is_good(response, repeated=repeated):
            return response
        await response.aread()
        raise error_of(response)

    async def _pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        with self._policy.typed_errors():
            async for piece in response.aiter_bytes():
                yield piece


async def _without_blocking(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a file, read in a thread."""
    while piece := await anyio.to_thread.run_sync(next, pieces, b""):
        yield piece
