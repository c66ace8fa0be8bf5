"""The service over a ledger in memory, a bell that only counts, and a data root written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from ascribe.ledger.base import Call, Ledger, Policy, Ring
from ascribe.ledger.memory import MemoryLedger
from ascribe.settings import ServiceSettings
from service.app import create_app
from tests.support.handmade import spec_body, write_checkpoint, write_rows

TRAIN_ROWS = 30


@dataclass
class RecordingDoorbell:
    rings: list[Ring] = field(default_factory=list)

    def ring(self, ring: Ring) -> None:
        self.rings.append(ring)

    def call(self, call: Call) -> None:
        """No helper works here."""


@dataclass
class Api:
    """The running service from the outside, and the ledger behind it."""

    client: TestClient
    ledger: MemoryLedger
    doorbell: RecordingDoorbell
    root: Path

    def post(self, **fields: Any) -> Response:
        # Plain ASCII JSON: the client's own encoder refuses half a surrogate pair, a caller's may not.
        body = json.dumps(spec_body(**fields))
        return self.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})

    def submit(self, **fields: Any) -> str:
        response = self.post(**fields)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_checkpoint(root)
    write_rows(root / "topics" / "train.jsonl", TRAIN_ROWS)
    return root


StartService = Callable[..., TestClient]


@pytest.fixture
def start(root: Path) -> Iterator[StartService]:
    """Start a service on a ledger, with settings of the test's own; all are stopped in the end."""
    clients: list[TestClient] = []

    def start_service(
        ledger: Ledger | None = None, doorbell: RecordingDoorbell | None = None, **given: Any
    ) -> TestClient:
        settings = ServiceSettings(
            data_root=root, **{"uploads_dir": root.parent / "uploads", "results_dir": root.parent / "results"} | given
        )
        app = create_app(settings, ledger=ledger or MemoryLedger(Policy()), doorbell=doorbell or RecordingDoorbell())
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield start_service
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def api(start: StartService, root: Path) -> Api:
    ledger, doorbell = MemoryLedger(Policy()), RecordingDoorbell()
    return Api(start(ledger, doorbell), ledger, doorbell, root)


def problem(response: Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    """The body, checked to be a problem of this kind; ``pointer`` is among those it names."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    codes = {body["code"], *(item["code"] for item in body["errors"])}
    assert code in codes, body
    if pointer is not None:
        assert pointer in [item["pointer"] for item in body["errors"]], body
    return body
