"""Many clients that ask one server the same thing again and again, each over a connection of its own.

    python -m benchmarks.pollers PORT PATH COUNT SECONDS PAUSE

By hand over asyncio: a client library would take longer than the server it asks. Prints latencies in seconds as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


async def poll(port: int, path: str, begin: float, end: float, pause: float) -> list[float]:
    """Ask from ``begin`` until ``end`` (seconds of :func:`time.perf_counter`), ``pause`` after each answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    seconds = []
    await asyncio.sleep(begin - time.perf_counter())
    while time.perf_counter() < end:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError("the server did not answer 200")
        (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(pause)
    writer.close()
    return seconds


async def poll_all(port: int, path: str, count: int, seconds: float, pause: float) -> list[float]:
    """``count`` pollers, their starts spread over one pause."""
    now = time.perf_counter() + 0.2
    begins = [now + pause * index / count for index in range(count)]
    found = await asyncio.gather(*(poll(port, path, begin, now + seconds, pause) for begin in begins))
    return [latency for poller in found for latency in poller]


def main() -> None:
    port, path, count, seconds, pause = sys.argv[1:]
    print(json.dumps(asyncio.run(poll_all(int(port), path, int(count), float(seconds), float(pause)))))


if __name__ == "__main__":
    main()
