"""A Redis that has reached its maxmemory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis


@contextmanager
def memory_full(server: redis.Redis) -> Iterator[None]:
    """Whatever may not run out of memory is refused inside the block; nothing is evicted."""
    server.config_set("maxmemory", 1)
    try:
        yield
    finally:
        server.config_set("maxmemory", 0)
