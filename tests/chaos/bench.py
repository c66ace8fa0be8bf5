"""A whole system to be broken: a Valkey that keeps every write, no-op workers in sessions of their own, a checker."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from ascribe.embedded.child import spawn
from ascribe.embedded.guard import end_group, signal_group
from ascribe.embedded.server import free_port, start_server
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.opening import open_ledger
from ascribe.settings import Settings
from ascribe.spec import JobSpec
from tests.chaos.checker import Checker, Kill
from tests.support.processes import Service, running_service

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
SHORT_TIMES = {
    "ASCRIBE_LEASE_SECONDS": "2",
    "ASCRIBE_RECONCILE_SECONDS": "0.5",
    "ASCRIBE_RING_AGAIN_SECONDS": "2",
    "ASCRIBE_RETRY_BACKOFF_SECONDS": "0.1",
    "ASCRIBE_MAX_ATTEMPTS": "20",
    "ASCRIBE_MAX_QUEUED_JOBS": "100000",
}
"""A lost worker is missed in seconds, and no random series of kills makes a job fail."""

Front = Callable[[int], AbstractContextManager[int]]
"""Puts something between the server's port and the port that workers, API and ledger use."""
WorkerEnv = Callable[[int], Mapping[str, str]]


@dataclass(slots=True)
class Worker:
    number: int
    process: subprocess.Popen[bytes]

    @property
    def claims_as(self) -> frozenset[str]:
        """Names under which processes of this group claim."""
        host = socket.gethostname()
        return frozenset(f"{host}-{pid}" for pid in group_members(self.process.pid))


class ChaosBench:
    """Use it with ``with``: inside, the server answers and every worker is ready; afterwards nothing of it runs.

    ``env``: further ``ASCRIBE_*`` variables for ledger, workers and API, on top of SHORT_TIMES. ``worker_app``: the
    module with the Celery application. ``worker_env``: variables of one worker on top, by its number. ``seed``: of the
    random choices.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        env: Mapping[str, str] | None = None,
        front: Front | None = None,
        worker_app: str = "tests.chaos.noop_worker",
        worker_env: WorkerEnv = lambda _: {},
        seed: int = 0,
    ) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.workers: list[Worker] = []
        self.random = random.Random(seed)  # noqa: S311 - a repeatable series of kills, no secret
        self.server_port = free_port()
        self._count = workers
        self._worker_app = worker_app
        self._worker_env = worker_env
        self._extra = dict(env or {})
        self._front = front
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            self.start_server()
            undo.callback(self.kill_server)
            self.port = undo.enter_context(self._front(self.server_port)) if self._front else self.server_port
            self.settings = self._settings()
            self.ledger = open_ledger(self.settings)
            undo.callback(self.ledger.close)
            self.server = redis.Redis(port=self.server_port, socket_timeout=10)
            undo.callback(self.server.close)
            self.checker = Checker(self.ledger, self.server, self.settings.tenant, self.logs)
            undo.callback(self._end_workers)
            for _ in range(self._count):
                self.start_worker()
            self.await_workers(self._count)
            self._closing = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    # -- jobs ---------------------------------------------------------------------------------------------------
    def submit(self, spec: JobSpec) -> str:
        """Create a job in the ledger; from its return on the checker wants to see it end."""
        job_id = self.ledger.create(new_job_id(), spec).job.id
        self.checker.accept(job_id)
        return job_id

    def ended(self) -> int:
        """Jobs in a terminal state."""
        return sum(count for state, count in self.ledger.counts().jobs.items() if state.terminal)

    def await_ended(self, count: int, within_seconds: float) -> None:
        """Until ``count`` jobs have ended. Raises TimeoutError."""
        deadline = time.monotonic() + within_seconds
        while self.ended() < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.ended()} of {count} jobs had ended after {within_seconds:g} s")
            time.sleep(0.05)

    # -- workers ------------------------------------------------------------------------------------------------
    def start_worker(self) -> Worker:
        """One more, not yet ready; its log is logs/worker-<number>.log."""
        number = len(self.workers) + 1
        worker = Worker(number, self._spawn_worker(number))
        self.workers.append(worker)
        return worker

    def await_workers(self, count: int) -> None:
        """Until so many workers have said that they are here. Raises TimeoutError."""
        deadline = time.monotonic() + START_SECONDS
        while len(self.ledger.workers()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the workers did not start: see {self.logs}")
            time.sleep(0.05)

    def kill_worker(self, worker: Worker) -> None:
        """SIGKILL to the whole group, as the kernel does; it stays dead until :meth:`restart_worker`."""
        victims = worker.claims_as
        seconds, microseconds = self.server.time()
        self.checker.kills.append(Kill(seconds + microseconds / 1e6, victims))
        signal_group(worker.process.pid, signal.SIGKILL)
        worker.process.wait()

    def restart_worker(self, worker: Worker) -> None:
        """Start it anew once it has ended, not waiting until it is ready."""
        worker.process = self._spawn_worker(worker.number)

    def kill_any_worker(self) -> None:
        """SIGKILL to a random group of those that are ready, and another worker in its place."""
        worker = self.random.choice(self._ready_workers())
        self.kill_worker(worker)
        self.restart_worker(worker)

    def _ready_workers(self) -> list[Worker]:
        """Those that have said that they are here; waits for the first. Raises TimeoutError."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            here = {info.worker for info in self.ledger.workers()}
            if ready := [worker for worker in self.workers if not here.isdisjoint(worker.claims_as)]:
                return ready
            time.sleep(0.05)
        raise TimeoutError(f"no worker is ready: see {self.logs}")

    # -- the server ---------------------------------------------------------------------------------------------
    def start_server(self) -> None:
        """Returns once it answers; on the same port and with what it had on disk."""
        self.server_process = start_server(self.folder / "valkey", self.server_port, append_only=True)

    def kill_server(self) -> None:
        """SIGKILL."""
        self.server_process.kill()
        self.server_process.wait()

    # -- the API ------------------------------------------------------------------------------------------------
    @contextmanager
    def api(self, **env: str) -> Iterator[Service]:
        """The service as a process of its own, over the data root ``folder/data``."""
        data_root = self.folder / "data"
        data_root.mkdir(exist_ok=True)
        with running_service(self.port, data_root, **self._variables(), **env) as service:
            yield service

    # -- inside -------------------------------------------------------------------------------------------------
    def _variables(self) -> dict[str, str]:
        return SHORT_TIMES | self._extra

    def _settings(self) -> Settings:
        values = {name.removeprefix("ASCRIBE_").lower(): value for name, value in self._variables().items()}
        return Settings.model_validate({"redis_url": f"redis://127.0.0.1:{self.port}/0"} | values)

    def _spawn_worker(self, number: int) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "ASCRIBE_REDIS_URL": f"redis://127.0.0.1:{self.port}/0",
            "ASCRIBE_CACHE_DIR": str(self.folder / "cache"),
        }
        flags = ["--without-gossip", "--without-mingle", "-n", f"chaos-{number}@%h"]
        command = [sys.executable, "-m", "celery", "-q", "-A", self._worker_app, "worker", *flags]
        log = self.logs / f"worker-{number}.log"
        environment |= self._variables() | dict(self._worker_env(number))
        return spawn(command, env=environment, cwd=self.folder, log=log)

    def _end_workers(self) -> None:
        for worker in self.workers:
            # Nobody waits for their goodbye: what a stopped worker does is tested where it is the point.
            end_group(worker.process.pid, grace_seconds=0, reap=worker.process.poll)


def group_members(group: int) -> Iterator[int]:
    """Processes of this process group, from /proc."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # ended meanwhile
            if int(after_name[2]) == group:
                yield int(entry.name)
