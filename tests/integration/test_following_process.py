"""Followers of a real service over a real server: many at once, one that stops, a server that is full or gone."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from ascribe.embedded.server import free_port, start_server
from ascribe.job import JobState, Phase, Progress
from ascribe.ledger.base import Policy
from ascribe.ledger.redis import RedisLedger
from tests.support.handmade import finish, spec_body, write_checkpoint, write_rows
from tests.support.ledger import ERROR, claim
from tests.support.processes import Service, running_service

SSE = {"Accept": "text/event-stream"}
FOLLOWERS = 200


@dataclass(frozen=True, slots=True)
class House:
    service: Service
    ledger: RedisLedger
    redis_port: int

    def submit(self, **headers: str) -> str:
        response = self.service.client.post("/v1/jobs", json=spec_body(), headers=headers)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])


@contextmanager
def open_house(folder: Path, **env: str) -> Iterator[House]:
    write_checkpoint(folder)
    write_rows(folder / "topics" / "train.jsonl", 30)
    port = free_port()
    server = start_server(folder / "valkey", port, append_only=False)
    ledger = RedisLedger(f"redis://127.0.0.1:{port}/0", tenant="default", policy=Policy(), timeout_seconds=3)
    try:
        with running_service(port, folder, **env) as service:
            yield House(service, ledger, port)
    finally:
        ledger.close()
        server.kill()
        server.wait()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as house:
        yield house


def threads_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"Threads:\s+(\d+)", status)[0])


async def follow(url: str, job_id: str, told: list[list[str]]) -> None:
    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        client.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response,
    ):
        assert response.status_code == 200
        told.append([line[7:] async for line in response.aiter_lines() if line.startswith("event: ")])


def test_many_followers_hear_everything_and_hold_no_thread(house: House) -> None:
    job_id = house.submit()
    told: list[list[str]] = []
    seen: list[int] = []

    async def all_follow() -> None:
        following = [
            asyncio.create_task(follow(str(house.service.client.base_url), job_id, told)) for _ in range(FOLLOWERS)
        ]
        await asyncio.sleep(3)
        seen.append(threads_of(house.service.process.pid))
        owner = await asyncio.to_thread(claim, house.ledger, job_id)
        progress = Progress(phase=Phase.SOLVING, done=0, total=1, fraction=0)
        await asyncio.to_thread(house.ledger.progress, owner, progress)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(house.ledger.fail, owner, ERROR)
        await asyncio.gather(*following)

    asyncio.run(all_follow())

    assert told == [["created", "started", "phase", "failed"]] * FOLLOWERS
    assert seen[0] < 60, "the pool's forty threads and a few, whatever the number of followers"


def test_a_stream_that_broke_off_is_taken_up(house: House) -> None:
    job_id = house.submit()
    with house.service.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response:
        first = next(line for line in response.iter_lines() if line.startswith("id: "))
    finish(house.ledger, job_id)
    rest = house.service.client.get(f"/v1/jobs/{job_id}/events", headers=SSE | {"Last-Event-ID": first[4:]})
    assert [line[7:] for line in rest.text.splitlines() if line.startswith("event: ")] == ["started", "succeeded"]


def test_a_follower_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    with open_house(tmp_path, ASCRIBE_MAX_FOLLOWERS="1") as house:
        job_id = house.submit()
        url = f"/v1/jobs/{job_id}/events"
        with house.service.client.stream("GET", url, headers=SSE) as response:
            lines = response.iter_lines()  # held on to: forgetting it closes the stream
            next(lines)
            assert httpx.get(f"{house.service.client.base_url}{url}", headers=SSE).status_code == 503
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with house.service.client.stream("GET", url, headers=SSE) as response:
                if response.status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("its place was never free again")


def test_a_service_that_ends_lets_its_followers_go(house: House) -> None:
    job_id = house.submit()
    base = str(house.service.client.base_url)
    answers: list[int] = []

    def wait() -> None:
        answers.append(httpx.get(f"{base}/v1/jobs/{job_id}", headers={"Prefer": "wait=60"}, timeout=60).status_code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    with house.service.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=SSE) as response:
        lines = response.iter_lines()
        next(lines)
        time.sleep(0.5)
        began = time.monotonic()
        house.service.process.send_signal(signal.SIGTERM)
        list(lines)
    waiting.join()
    house.service.process.wait(10)
    assert time.monotonic() - began < 5
    assert answers == [200]


def test_a_full_server_takes_no_job_and_lets_running_ones_finish(house: House) -> None:
    job_id = house.submit()
    owner = claim(house.ledger, job_id)
    with redis.Redis(port=house.redis_port) as client:
        client.config_set("maxmemory", "1")

    refused = house.service.client.post("/v1/jobs", json=spec_body())
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_unavailable")
    assert refused.json()["retryable"] is True
    assert "maxmemory" in refused.json()["detail"]

    house.ledger.progress(owner, Progress(phase=Phase.SOLVING, done=0, total=1, fraction=0))
    house.ledger.fail(owner, ERROR)
    events = house.service.client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert [event["type"] for event in events] == ["created", "started", "phase", "failed"]
    assert house.service.client.get(f"/v1/jobs/{job_id}/completion").json()["status"] == JobState.FAILED
    metrics = house.service.client.get("/metrics").text
    assert 'ascribe_jobs_finished_total{solver="schulz",status="failed"} 1.0' in metrics


def test_totals_outlast_the_service(tmp_path: Path, redis_url: str) -> None:
    port = int(re.findall(r":(\d+)/", redis_url)[0])
    write_checkpoint(tmp_path)
    write_rows(tmp_path / "topics" / "train.jsonl", 30)
    tenant = {"ASCRIBE_TENANT": "outlast"}
    ledger = RedisLedger(redis_url, tenant="outlast", policy=Policy(), timeout_seconds=3)
    for count in (1, 2):
        with running_service(port, tmp_path, **tenant) as service:
            finish(ledger, service.client.post("/v1/jobs", json=spec_body()).json()["id"])
            text = service.client.get("/metrics").text
            assert f'ascribe_jobs_finished_total{{solver="schulz",status="succeeded"}} {count}.0' in text
    ledger.close()


def test_without_a_server_metrics_and_streams_still_answer(tmp_path: Path) -> None:
    with running_service(free_port(), tmp_path) as service:
        text = service.client.get("/metrics").text
        assert "ascribe_up 0.0" in text
        assert 'route="/healthz"' in text
        gone = service.client.get("/v1/jobs/job_" + "0" * 32 + "/events", headers=SSE)
        assert (gone.status_code, gone.json()["code"]) == (503, "queue_unavailable")


def test_each_request_is_one_line_with_its_ids(tmp_path: Path) -> None:
    key = "k-" + "0123456789abcdef"
    with open_house(tmp_path, ASCRIBE_API_KEY=key) as house:
        house.service.client.headers["Authorization"] = f"Bearer {key}"
        job_id = house.submit(**{"X-Request-Id": "mine-1"})
        house.service.client.get(f"/v1/jobs/{job_id}?include=rows&secret=in-the-query")
        house.service.client.get("/v1/secret-path", headers={"Authorization": "Bearer wrong-key"})
        house.service.client.get("/healthz")
        house.service.process.send_signal(signal.SIGTERM)
        house.service.process.wait(10)

        submitted, got, refused = house.service.lines("request")
        assert (submitted["request_id"], submitted["method"], submitted["route"]) == ("mine-1", "POST", "/v1/jobs")
        assert submitted["status"] == 202
        assert submitted["ms"] > 0
        assert (got["route"], got["job_id"]) == ("/v1/jobs/{job_id}", job_id)
        assert (refused["status"], refused["route"]) == (401, "none")
        (created,) = house.service.lines("job submitted")
        assert (created["job_id"], created["request_id"]) == (job_id, "mine-1")
        text = json.dumps(house.service.lines())
        for secret in (key, "wrong-key", "secret-path", "in-the-query", "undo a commit", str(tmp_path)):
            assert secret not in text
