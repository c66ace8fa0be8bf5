"""``GET /v1/jobs/{id}`` under many pollers, beside a bare FastAPI route that sends the same bytes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from ascribe.client import Client
from ascribe.embedded.server import free_port, start_server
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject

START_SECONDS = 30.0
POLL_SECONDS = 1.0
"""What the API asks for in Retry-After."""


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """Both servers in turn, several times: as the API asks to be polled, and then without any pause."""
    train = subject.write_rows("few", sizes.queries, sizes.tokens)
    with TemporaryDirectory() as folder, _server(Path(folder)) as redis, _service(subject, redis) as port:
        with Client(f"http://127.0.0.1:{port}") as client:
            job = client.create(subject.spec(train, train))  # no worker: it stays queued
        document = Path(folder) / "job.json"
        document.write_text(job.model_dump_json(), encoding="utf-8")
        path = f"/v1/jobs/{job.id}"
        with _bare(document) as bare_port:
            paced = _both(port, bare_port, path, sizes, POLL_SECONDS)
            full = _both(port, bare_port, path, sizes, 0.0)
    for name, place in (("p50", 49), ("p95", 94), ("p99", 98)):
        ours, bare = (quantiles(latencies, n=100)[place] * 1000 for latencies in paced)
        shape = f"{sizes.pollers} pollers, one request a second each"
        yield Row(f"GET job, {name} / bare route", ours / bare, "x", f"{ours:.1f} ms", f"{bare:.1f} ms", shape)
    ours, bare = (len(latencies) / sizes.seconds for latencies in full)
    shape = f"{sizes.pollers} pollers without a pause"
    yield Row("GET job, throughput / bare route", ours / bare, "x", f"{ours:.0f} requests/s", f"{bare:.0f}", shape)


def _both(port: int, bare_port: int, path: str, sizes: Sizes, pause: float) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(sizes.repeats):
        for latencies, each in zip(found, (port, bare_port), strict=True):
            numbers = map(str, (each, path, sizes.pollers, sizes.seconds / sizes.repeats, pause))
            command = [sys.executable, "-m", "benchmarks.pollers", *numbers]
            latencies += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    port = free_port()
    process = start_server(folder, port, append_only=True)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _service(subject: Subject, redis_url: str) -> Iterator[int]:
    settings = {"ASCRIBE_REDIS_URL": redis_url, "ASCRIBE_DATA_ROOT": str(subject.data_root)}
    port = free_port()
    with _running(port, "-m", "service", "--port", str(port), env=settings):
        yield port


@contextmanager
def _bare(document: Path) -> Iterator[int]:
    port = free_port()
    with _running(port, "-m", "benchmarks.bare", str(port), str(document)):
        yield port


@contextmanager
def _running(port: int, *arguments: str, env: dict[str, str] | None = None) -> Iterator[None]:
    """A server as a process of its own, from when it listens to ``port``."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | (env or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(arguments[:2])} did not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
