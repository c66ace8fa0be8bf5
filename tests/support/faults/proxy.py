"""A TCP proxy on loopback that does to connections what networks do: slow, cut, swallow, forget one side."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PIECE_BYTES = 1 << 16
START_SECONDS = 10.0
_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST and drops what was not sent."""


class FaultyProxy:
    """Stands before one port of this machine; its faults are set from any thread, at any time.

    A connection of which bytes were swallowed stays silent in that direction until it is closed, healed or not: a
    stream with a hole in it would be another fault than a lost network is.
    """

    def __init__(self) -> None:
        self.latency_seconds = 0.0
        """Each way, from now on."""
        self._swallows = frozenset[str]()
        self._cut_at: bytes | None = None
        self._links: set[_Link] = set()

    @contextmanager
    def before(self, port: int) -> Iterator[int]:
        """Runs inside the block, in a thread of its own; yields the port to connect to instead of ``port``."""
        self._port = port
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        thread.start()
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            asyncio.run_coroutine_threadsafe(self._end(server), self._loop).result(START_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(START_SECONDS)
            self._loop.close()

    @property
    def connections(self) -> int:
        return len(self._links)

    # -- faults that last ---------------------------------------------------------------------------------------
    def black_hole(self) -> None:
        """Nothing arrives in either direction, and nobody is told."""
        self._swallows = frozenset({"requests", "replies"})

    def lose_replies(self) -> None:
        """Requests arrive and are carried out; who sent them never hears."""
        self._swallows = frozenset({"replies"})

    def heal(self) -> None:
        """All is well for new connections, and for those that lost nothing."""
        self._swallows = frozenset()
        self.latency_seconds = 0.0

    # -- faults of a moment -------------------------------------------------------------------------------------
    def reset(self) -> None:
        """RST to both ends of every connection."""
        self._at_once(lambda link: link.abort(both=True))

    def half_open(self) -> None:
        """RST to the clients' ends alone: the server believes them alive, and what it sends them is gone."""
        self._at_once(lambda link: link.abort(both=False))

    def cut_next(self, words: bytes) -> None:
        """RST to both ends of the connection that next sends ``words``, which do not arrive."""
        self._cut_at = words

    # -- inside -------------------------------------------------------------------------------------------------
    def _at_once(self, do: Callable[[_Link], None]) -> None:
        async def to_all() -> None:
            for link in list(self._links):
                do(link)

        asyncio.run_coroutine_threadsafe(to_all(), self._loop).result(START_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            _abort(writer)  # there is no server: as near to a refused connection as a proxy can come
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump("requests", reader, server_writer, link), self._pump("replies", server_reader, writer, link)
            )
        finally:
            self._links.discard(link)
            writer.close()
            server_writer.close()

    async def _pump(self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        silent = False
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE_BYTES):
                await asyncio.sleep(self.latency_seconds)
                if what == "requests" and self._cut_at is not None and self._cut_at in piece:
                    self._cut_at = None
                    link.abort(both=True)
                    return
                silent = silent or what in self._swallows
                if not silent:
                    writer.write(piece)
                    await writer.drain()
        if not link.forgotten and not silent:
            with contextlib.suppress(OSError):
                writer.write_eof()

    async def _end(self, server: asyncio.Server) -> None:
        """By closing every connection: each task then ends by itself."""
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        self.latency_seconds = 0.0
        for link in list(self._links):
            link.abort(both=True)
        await asyncio.gather(*tasks, return_exceptions=True)


class _Link:
    """One client's connection and the one to the server made for it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self.forgotten = False
        """The server is not told that the client is gone."""

    def abort(self, *, both: bool) -> None:
        self.forgotten = not both
        _abort(self._client)
        if both:
            _abort(self._server)


def _abort(writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        return  # ended by itself
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
