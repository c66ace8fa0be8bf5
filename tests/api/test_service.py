"""The house around the jobs: health, key, request ids, faults, the document, what is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from openapi_spec_validator import validate

from ascribe.embedded.server import free_port
from ascribe.errors import QueueUnavailable
from ascribe.job import Job
from ascribe.ledger.base import Policy
from ascribe.ledger.memory import MemoryLedger
from ascribe.ledger.redis import RedisLedger
from ascribe.spec import PAIRS
from service.loopback import is_loopback
from service.openapi import FILE, render
from tests.api.conftest import Api, StartService, problem
from tests.support.handmade import spec_body

KEY = "k" * 32


class FaultyLedger(MemoryLedger):
    """Breaks in a way that nobody expected."""

    def get(self, job_id: str) -> Job:
        raise RuntimeError(f"s3cr3t {job_id}")


def test_health_and_version(api: Api) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    assert api.client.get("/readyz").json() == {"status": "ready", "workers": 0}
    assert api.client.get("/version").json()["api"] == "v1"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", "[2001:db8::1]:80", ""])
def test_without_a_key_only_this_machines_names_are_answered(api: Api, host: str) -> None:
    problem(api.client.get("/v1/methods", headers={"Host": host}), 421, "misdirected_request")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000"])
def test_this_machines_names(api: Api, host: str) -> None:
    assert api.client.get("/v1/methods", headers={"Host": host}).is_success


def test_with_a_key_any_name_is_answered(start: StartService) -> None:
    client = start(api_key=KEY)
    assert client.get("/v1/methods", headers={"Host": "ascribe.example", "Authorization": f"Bearer {KEY}"}).is_success


def test_redis_gone(start: StartService) -> None:
    """A real client and nobody at the other end: the service starts, and says 503 within seconds."""
    ledger = RedisLedger(f"redis://127.0.0.1:{free_port()}/0", tenant="t", policy=Policy(), timeout_seconds=1)
    client = start(ledger)
    began = time.monotonic()
    assert client.get("/healthz").status_code == 200
    problem(client.get("/readyz"), 503, "queue_unavailable")
    response = client.post("/v1/jobs", json=spec_body())
    assert problem(response, 503, "queue_unavailable")["retryable"] is True
    assert response.headers["retry-after"] == "1"
    assert time.monotonic() - began < 10


def test_queue_unavailable_is_no_fault(start: StartService) -> None:
    class Gone(MemoryLedger):
        def ping(self) -> None:
            raise QueueUnavailable("Redis does not answer.")

    problem(start(Gone(Policy())).get("/readyz"), 503, "queue_unavailable")


def test_a_fault_of_ours_tells_nothing(start: StartService, caplog: pytest.LogCaptureFixture) -> None:
    client = start(FaultyLedger(Policy()))
    response = client.get("/v1/jobs/job_" + "0" * 32, headers={"X-Request-Id": "mine-1"})
    body = problem(response, 500, "internal_error")
    assert "s3cr3t" not in response.text
    assert body["request_id"] == "mine-1"
    assert "request failed" in caplog.text


@pytest.mark.parametrize(("offered", "kept"), [("abc-123", True), ("a b", False), ("x" * 200, False), ("", False)])
def test_request_id(api: Api, offered: str, kept: bool) -> None:
    answered = api.client.get("/healthz", headers={"X-Request-Id": offered}).headers["x-request-id"]
    assert (answered == offered) is kept
    assert kept or answered.startswith("req_")


def test_key(start: StartService) -> None:
    client = start(api_key=KEY)
    for path in ("/healthz", "/readyz", "/version", "/openapi.json"):
        assert client.get(path).status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}, {"Authorization": KEY}):
        response = client.get("/v1/jobs", headers=headers)
        problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
    problem(client.post("/v1/jobs", content=b"{"), 401, "unauthorized")
    problem(client.get("/v1/nowhere"), 401, "unauthorized")
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("192.0.2.1", False), ("api.test", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (["--host", "192.0.2.1"], {}, "set ASCRIBE_API_KEY"),
        ([], {"ASCRIBE_API_KEY": "too-short"}, "ASCRIBE_API_KEY"),
        (["--port", "70000"], {}, "ASCRIBE_PORT"),
    ],
)
def test_refuses_to_start(arguments: list[str], env: dict[str, str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "too-short" not in done.stderr
    assert "Traceback" not in done.stderr


def test_methods_show_the_pair_table(api: Api) -> None:
    body = api.client.get("/v1/methods").json()
    assert {curvature["kind"]: tuple(curvature["solvers"]) for curvature in body["curvatures"]} == PAIRS
    assert {(pair["curvature"], pair["solver"]) for pair in body["pairs"]} == {(c, s) for c in PAIRS for s in PAIRS[c]}
    dampings = {(pair["curvature"], pair["solver"]): pair["default_damping"] for pair in body["pairs"]}
    solvers = {solver["kind"]: solver for solver in body["solvers"]}
    assert dampings["empirical_fisher", "lissa"] == {"relative_to_largest": 0.005}
    assert dampings["gauss_newton", "cg"] == {"relative_to_largest": 0.005}
    assert dampings["gfim", "cg"] == {"relative": 1.0}
    assert dampings["none", "identity"] is None
    assert "tolerance" in solvers["schulz"]["options"]["properties"]
    assert all(entry["when"] and entry["summary"] for entry in body["curvatures"] + body["solvers"])


def test_document_is_valid_and_committed(api: Api) -> None:
    text = render()
    document = json.loads(text)
    validate(document)
    assert FILE.read_text(encoding="utf-8") == text, "run 'make openapi' and commit the file"
    assert api.client.get("/openapi.json").json() == document


def test_document_names_every_problem() -> None:
    document = json.loads(render())
    names = []
    for operations in document["paths"].values():
        for operation in operations.values():
            names.append(operation["operationId"])
            assert operation["tags"]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/JobError"}
    assert len(names) == len(set(names))
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_example_of_the_document_is_a_spec(api: Api) -> None:
    operation = json.loads(render())["paths"]["/v1/jobs"]["post"]
    (example,) = operation["requestBody"]["content"]["application/json"]["examples"].values()
    assert api.client.post("/v1/jobs", json=example["value"]).status_code == 202


def test_the_service_loads_no_numerics() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import service.__main__; print(time.perf_counter() - began); "
        "print([n for n in ('torch', 'numpy', 'celery', 'kombu', 'transformers', 'worker') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    seconds, loaded = done.stdout.splitlines()
    print(f"the service's modules load in {float(seconds):.2f} s")
    assert loaded == "[]"
