"""Vectors are stored in chunks of at most 1 MiB: small enough for one reply, big enough for few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

CHUNK_BYTES = 1 << 20


def pieces(offset: int, length: int, size: int = CHUNK_BYTES) -> Iterator[tuple[int, int, int]]:
    """Where ``length`` bytes from ``offset`` on lie: for each chunk its index, and from where to where in it."""
    stop = offset + length
    for index in range(offset // size, -(-stop // size)):
        start = index * size
        yield index, max(offset - start, 0), min(stop - start, size)


def rechunk(chunks: Iterable[bytes], size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The same bytes in pieces of ``size``, the last one shorter; one empty piece for no bytes at all."""
    buffer = bytearray()
    empty = True
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
            empty = False
    if buffer or empty:
        yield bytes(buffer)
