"""A body of any length, sent as fast as the client reads it, and no longer than it does."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping

import anyio
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Send

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 16
"""What is handed to the server at once: it may lie in its write buffer until the client takes it."""


class Download(StreamingResponse):
    """Runs ``chunks`` in threads. The next one is made when the client has taken the last: none pile up.

    A client to whom nothing could be sent for ``patience_seconds``, or that went away, ends the generator, and with
    it whatever that holds. While the client is waited for, no thread is held.
    """

    def __init__(
        self,
        chunks: Generator[bytes],
        *,
        media_type: str,
        headers: Mapping[str, str],
        patience_seconds: float,
    ) -> None:
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._chunks = chunks
        self._patience_seconds = patience_seconds

    async def stream_response(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in iterate_in_threadpool(self._chunks):
                for start in range(0, len(chunk), PIECE_BYTES):
                    if not await self._sent(chunk[start : start + PIECE_BYTES], send):
                        return  # without an end: the server closes the connection, and the client knows
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._chunks.close()

    async def _sent(self, piece: bytes, send: Send) -> bool:
        with anyio.move_on_after(self._patience_seconds) as scope:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if scope.cancelled_caught:
            log.warning("a client took too little of its download for %g seconds: let go", self._patience_seconds)
        return not scope.cancelled_caught
