"""Uploads to the API as a process: a client that goes away, memory that stays flat."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from ascribe.embedded.server import free_port
from tests.support.processes import Service, running_service

HEADERS = {"Content-Type": "application/x-ndjson"}
ROW = json.dumps({"text": "x" * 1000, "label": 1}).encode() + b"\n"


def _uploads(folder: Path) -> list[Path]:
    return sorted((folder / "uploads" / "default").iterdir())


def test_a_client_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_service(free_port(), tmp_path, ASCRIBE_UPLOADS_DIR=str(tmp_path / "uploads")) as service:
        url = httpx.URL(str(service.client.base_url))
        with socket.create_connection((url.host, url.port)) as connection:
            head = f"POST /v1/datasets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {HEADERS['Content-Type']}\r\n"
            connection.sendall(head.encode() + b"Content-Length: 1000000\r\n\r\n" + ROW * 100)
            _until(lambda: any(path.stat().st_size for path in (tmp_path / "uploads").rglob("rows.jsonl")))
        _until(lambda: not _uploads(tmp_path))
        assert service.lines("client went away")
        assert not service.lines("request failed")
        assert service.client.post("/v1/datasets", content=ROW, headers=HEADERS).status_code == 201
        assert len(_uploads(tmp_path)) == 1


def test_memory_does_not_grow_with_the_upload(tmp_path: Path) -> None:
    with running_service(free_port(), tmp_path, ASCRIBE_UPLOADS_DIR=str(tmp_path / "uploads")) as service:
        assert service.client.post("/v1/datasets", content=ROW, headers=HEADERS).status_code == 201
        before = _resident_bytes(service)
        rows = 100_000
        response = service.client.post(
            "/v1/datasets", content=(ROW * 100 for _ in range(rows // 100)), headers=HEADERS, timeout=120
        )
        assert response.json()["rows"] == rows
        assert _resident_bytes(service) - before < 30 << 20, "100 MB went through"


def _resident_bytes(service: Service) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
