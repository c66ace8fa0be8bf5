"""The service as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ascribe.embedded.server import free_port


@dataclass(frozen=True, slots=True)
class Service:
    client: httpx.Client
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it has logged; every line must be JSON."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in found if event in (None, line["event"])]


@contextmanager
def running_service(redis_port: int, data_root: Path, **env: str) -> Iterator[Service]:
    """Up and alive inside the block, whether or not Redis is."""
    port = free_port()
    settings = {
        "ASCRIBE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "ASCRIBE_DATA_ROOT": str(data_root),
        "ASCRIBE_PORT": str(port),
        "ASCRIBE_REDIS_TIMEOUT_SECONDS": "1",
    }
    path = data_root / "service.log"
    with path.open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "service"], env=os.environ | settings | env, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _await_alive(client)
            yield Service(client, process, path)
    finally:
        process.terminate()
        process.wait(20)


def _await_alive(client: httpx.Client) -> None:
    for _ in range(200):
        try:
            if client.get("/healthz").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError
