"""The API as a process over a server that is gone, frozen or protected: answers come within seconds, and say why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ascribe.embedded.server import free_port, start_server
from tests.support.processes import running_service
from tests.support.tiny import make_checkpoint

SPEC: dict[str, Any] = {
    "model": {"base": "base", "adapter": "adapter"},
    "train": {"source": {"kind": "inline", "rows": [{"text": "a cat", "label": 0}]}},
    "validation": {"source": {"kind": "inline", "rows": [{"text": "a dog", "label": 0}]}},
    "curvature": {"kind": "gfim"},
    "solver": {"kind": "schulz"},
}


@contextmanager
def _service(redis_port: int, data_root: Path, **env: str) -> Iterator[httpx.Client]:
    make_checkpoint(data_root)
    with running_service(redis_port, data_root, **env) as service:
        yield service.client


def _assert_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["code"], response.json()["retryable"]) == ("queue_unavailable", True)


def test_redis_gone_is_a_503_within_seconds(tmp_path: Path) -> None:
    with _service(free_port(), tmp_path) as client:
        started = time.monotonic()
        _assert_unavailable(client.post("/v1/jobs", json=SPEC))
        _assert_unavailable(client.get("/readyz"))
        assert client.get("/healthz").is_success
        assert time.monotonic() - started < 10


def test_a_frozen_server_is_a_503_and_a_thawed_one_takes_the_job(tmp_path: Path) -> None:
    redis_port = free_port()
    server = start_server(tmp_path / "valkey", redis_port, append_only=False)
    try:
        with _service(redis_port, tmp_path) as client:
            os.kill(server.pid, signal.SIGSTOP)
            _assert_unavailable(client.post("/v1/jobs", json=SPEC))
            os.kill(server.pid, signal.SIGCONT)
            response = client.post("/v1/jobs", json=SPEC)
            assert response.status_code == 202, response.text
            assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    finally:
        server.kill()
        server.wait()


def test_a_request_under_way_is_finished_when_the_service_is_told_to_stop(tmp_path: Path) -> None:
    rows = [b'{"text": "row %d", "label": 0}\n' % number for number in range(10)]
    with running_service(free_port(), tmp_path, ASCRIBE_UPLOADS_DIR=str(tmp_path / "uploads")) as service:

        def body() -> Iterator[bytes]:
            yield rows[0]
            time.sleep(0.3)
            service.process.terminate()
            time.sleep(0.7)
            yield from rows[1:]

        headers = {"Content-Type": "application/x-ndjson"}
        answer = service.client.post("/v1/datasets", content=body(), headers=headers)
        assert (answer.status_code, answer.json()["rows"]) == (201, 10), answer.text
        assert service.process.wait(10) == -signal.SIGTERM, "uvicorn ends by the signal when all is done"


def test_a_key_is_asked_for_and_compared(tmp_path: Path) -> None:
    key = "a-secret-of-some-length"
    with _service(free_port(), tmp_path, ASCRIBE_API_KEY=key) as client:
        assert client.get("/v1/methods").status_code == 401
        assert client.get("/v1/methods", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/v1/methods", headers={"Authorization": f"Bearer {key}"}).is_success


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])  # noqa: S104  # refused is what we test
def test_without_a_key_only_loopback_is_bound(tmp_path: Path, host: str) -> None:
    env = os.environ | {"ASCRIBE_HOST": host}
    ended = subprocess.run(
        [sys.executable, "-m", "service"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert "ASCRIBE_API_KEY" in ended.stderr
