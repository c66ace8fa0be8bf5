"""Callers who do not give up: each job is sent under a key of its own until the API has said yes to it."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from ascribe.spec import JobSpec
from tests.chaos.bench import ChaosBench
from tests.support.waiting import await_that

PATIENCE_SECONDS = 180.0
AGAIN_SECONDS = 0.2
WORKING_SECONDS = 60.0
STARTED = b'"event": "attempt started"'
UNAVAILABLE = "503 application/problem+json"


def kind(answer: httpx.Response) -> str:
    """Status and media type: what tells one refusal from another."""
    return f"{answer.status_code} {answer.headers['content-type']}"


@dataclass
class Load:
    """``clients`` callers inside the block, each pausing ``every_seconds`` between its jobs.

    ``urls`` is asked anew for each request, and they take turns: APIs may come and go. What was not a yes is counted in
    ``refusals``, by :func:`kind` or by the name of httpx' error. Leaving the block raises what a caller raised.
    """

    bench: ChaosBench
    urls: Sequence[str]
    spec: JobSpec
    clients: int = 2
    every_seconds: float = 0.1
    refusals: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Self:
        self._body = self.spec.model_dump(mode="json")
        self._turns = itertools.count()
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(self.clients)
        self._callers: list[Future[None]] = [self._pool.submit(self._call) for _ in range(self.clients)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._pool.shutdown()
        if error is None:
            for caller in self._callers:
                caller.result()

    def wrong(self, *right: str) -> tuple[str, ...]:
        """In words, every refusal that is not one of ``right``."""
        return tuple(f"{count} answered {kind}" for kind, count in self.refusals.items() if kind not in right)

    def _call(self) -> None:
        # Without connections kept for later: one that an API closes as it ends is nobody's fault.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(timeout=30, limits=limits, trust_env=False) as client:
            while not self._over.wait(self.every_seconds):
                self._submit(client, {"Idempotency-Key": uuid.uuid4().hex})

    def _submit(self, client: httpx.Client, key: Mapping[str, str]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            answer = self._post(client, key)
            if answer is not None:
                self.bench.checker.accept(answer["id"])
                return
            time.sleep(AGAIN_SECONDS)
        raise TimeoutError(f"no job was taken in {PATIENCE_SECONDS:g} s; refusals: {dict(self.refusals)}")

    def _post(self, client: httpx.Client, key: Mapping[str, str]) -> dict[str, Any] | None:
        url = self.urls[next(self._turns) % len(self.urls)]
        try:
            answer = client.post(f"{url}/v1/jobs", json=self._body, headers=dict(key))
        except httpx.TransportError as error:
            self.refusals[type(error).__name__] += 1
            return None
        if answer.is_success:
            job: dict[str, Any] = answer.json()
            return job
        self.refusals[kind(answer)] += 1
        return None


def await_all_working(bench: ChaosBench) -> float:
    """Until every worker has begun an attempt since now; the seconds it took. Raises TimeoutError naming the deaf."""
    logs = {worker.number: bench.logs / f"worker-{worker.number}.log" for worker in bench.workers}
    deaf = {number: log.stat().st_size for number, log in logs.items()}

    def none_deaf() -> bool:
        for number in [number for number, size in deaf.items() if STARTED in logs[number].read_bytes()[size:]]:
            del deaf[number]
        return not deaf

    try:
        return await_that(none_deaf, "every worker took a job", within_seconds=WORKING_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"workers {sorted(deaf)} took no job in {WORKING_SECONDS:g} s") from error
