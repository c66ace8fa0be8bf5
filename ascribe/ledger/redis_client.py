"""The ledger's connection: bounded waits, errors in our words, and the Lua scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ascribe.errors import QueueUnavailable
from ascribe.ledger import messages

SCRIPTS = (
    "announce",
    "cancel",
    "claim",
    "counts",
    "create",
    "delete",
    "end",
    "finished",
    "mourn",
    "offer",
    "part",
    "read",
    "reconcile",
    "register",
    "renew",
    "stage",
    "standing",
    "take",
    "workers",
)

_KINDS: tuple[tuple[type[redis.RedisError], str], ...] = (
    (redis.BusyLoadingError, "Redis is loading its data from disk: try again in a moment."),
    (redis.AuthenticationError, "Redis refuses the password: check the one in ASCRIBE_REDIS_URL."),
    (redis.TimeoutError, "Redis did not answer in time: check that it is running and not overloaded."),
    (redis.ConnectionError, "Redis cannot be reached: check ASCRIBE_REDIS_URL and that Redis is running."),
    (
        redis.exceptions.OutOfMemoryError,
        "Redis has reached its maxmemory and takes no new work: delete old jobs, wait for scores to expire, "
        "or raise maxmemory.",
    ),
    (redis.ReadOnlyError, "Redis is a read-only replica: point ASCRIBE_REDIS_URL at the primary."),
    (
        redis.exceptions.NoPermissionError,
        "The Redis user may not do this: let it run scripts and use the keys that start with '{ascribe:'.",
    ),
)
"""Ways not to serve that the client has a class for; the first that fits, special before general."""

_WORDS = {
    "MISCONF": "Redis cannot write to its disk and refuses changes: free disk space, or see its log.",
    "NOREPLICAS": "Redis has too few replicas and refuses changes: bring them back.",
    "MASTERDOWN": "Redis is a replica that lost its primary: point ASCRIBE_REDIS_URL at the primary.",
    "CLUSTERDOWN": "The Redis cluster is down: bring its missing nodes back.",
    "BUSY": "Redis is busy with a long script: try again, or end that script with SCRIPT KILL.",
}
"""Ways that only the first word of the reply tells."""


def connect(url: str, timeout_seconds: float) -> redis.Redis:
    """A client that never waits longer than ``timeout_seconds`` and never tries again by itself.

    The callers know better when to: HTTP clients by Retry-After, workers by their lease. Connections that died while
    they lay in the pool are noticed and replaced before they are used.
    """
    return redis.Redis.from_url(
        url,
        protocol=2,  # asks for no more than the scripts need, from Redis or Valkey alike
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
    )


@contextmanager
def answering() -> Iterator[None]:
    """Turns every way in which Redis does not serve into QueueUnavailable. No message repeats the URL."""
    try:
        yield
    except redis.RedisError as error:
        detail = next((text for kind, text in _KINDS if isinstance(error, kind)), None)
        detail = detail or _WORDS.get(str(error).split(" ", 1)[0])
        if detail is None:
            raise
        raise QueueUnavailable(detail) from error


class Scripts:
    """``*.lua`` beside this file, each run as one atomic step on one tenant's keys.

    The first line of a script says what it may do: ``allow-oom`` marks the steps by which a running job finishes when
    Redis is full, where creating and claiming are refused as a whole (Redis 7, any Valkey).
    """

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._prefix = prefix
        self._scripts = {name: client.register_script(_source(name)) for name in SCRIPTS}

    def run(self, name: str, *arguments: str | bytes | int) -> Any:
        with answering():
            return self._scripts[name](keys=[self._prefix], args=arguments)


def ms(seconds: float) -> int:
    """Redis counts in milliseconds, and refuses a TTL of none."""
    return max(1, round(seconds * 1000))


def kept(answer: Any) -> Any:
    """The answer to a write under a fence, unless it was refused."""
    if answer == b"lost":
        raise messages.lease_lost()
    return answer


def _source(name: str) -> str:
    folder = files(__package__)
    shebang, body = (folder / f"{name}.lua").read_text("utf-8").split("\n", 1)
    common = (folder / "common.lua").read_text("utf-8")
    return f"{shebang}\n{common}\n{body}"
