"""The whole of Ascribe on one machine: a Valkey server, the API and CPU workers as subprocesses.

    with Stack("data") as stack:
        client = ascribe.Client(stack.url)

``ascribe up`` is this class with a panel around it. Jobs, scores and the gradient cache live in ``state_dir`` and
outlast the stack: a job that was running when it ended goes on under the next one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import ascribe
from ascribe.client.discovery import Running, default_state_dir, remove_running, write_running
from ascribe.embedded.child import Child, Guard, StackError, spawn
from ascribe.embedded.host import free_ports, lock, ready_workers, require_extra
from ascribe.embedded.server import start_server
from ascribe.errors import QueueUnavailable


def worker_arguments(number: int) -> list[str]:
    """Celery's command line for one CPU worker."""
    flags = ["--without-gossip", "--without-mingle"]
    # Quiet: its banner is no line of the log.
    return ["celery", "-q", "-A", "worker.app", "worker", *flags, "-n", f"ascribe-{number}@%h"]


class Stack:
    """Start it with ``with``; everything has ended when the block has, or when this process is gone.

    ``cache_dir``: gradients, ``state_dir/cache`` when left out. ``port``: of the API, 0 for any free one. ``env``:
    further variables for the API and the workers, such as ``{"ASCRIBE_LEASE_SECONDS": "5"}``. Raises StackError.
    """

    def __init__(
        self,
        data_root: Path | str,
        *,
        cache_dir: Path | str | None = None,
        state_dir: Path | str | None = None,
        port: int = 0,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        start_seconds: float = 120.0,
    ) -> None:
        self.data_root = Path(data_root).resolve()
        self.state_dir = (Path(state_dir) if state_dir else default_state_dir()).resolve()
        self.cache_dir = Path(cache_dir).resolve() if cache_dir else self.state_dir / "cache"
        self.log_dir = self.state_dir / "logs"
        self.url = ""
        self._port = port
        self._worker_count = workers
        self._extra_env = dict(env or {})
        self._start_seconds = start_seconds
        self._children: list[Child] = []
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            try:
                self._start(undo)
            except QueueUnavailable as error:
                raise StackError(error.detail) from error
            self._closing = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    @property
    def worker_pids(self) -> list[int]:
        """Leader of each worker's process group."""
        return [worker.pid for worker in self._workers]

    def kill_worker(self, index: int = 0) -> None:
        """SIGKILL to a worker and its children; it stays dead until :meth:`restart_worker`."""
        self._workers[index].kill()

    def restart_worker(self, index: int = 0) -> None:
        """End the worker, if it still runs, and start a new one in its place."""
        self._workers[index].restart()

    def supervise(self, say: Callable[[str], None]) -> NoReturn:
        """Start workers again when they end, later and later when they keep ending; ``say`` hears of it.

        Raises StackError when the API or the server ends: what made them end would end them again.
        """
        while True:
            time.sleep(0.5)
            for child in self._children[:2]:
                child.check()
            for worker in self._workers:
                worker.revive(say)

    # -- starting -----------------------------------------------------------------------------------------------
    @property
    def _workers(self) -> list[Child]:
        return self._children[2:]

    def _start(self, undo: ExitStack) -> None:
        require_extra()
        if not self.data_root.is_dir():
            raise StackError(f"the data root {self.data_root} is not a folder: make it, or name another")
        for folder in (self.state_dir, self.cache_dir, self.log_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        guard = Guard(undo.enter_context(lock(self.state_dir)))
        undo.callback(lambda: guard.end(lambda: [child.ended() for child in self._children]))
        self._launch(guard)
        self._await_ready()
        running = Running(url=self.url, pid=os.getpid(), started_at=datetime.now(UTC), cache_dir=self.cache_dir)
        write_running(self.state_dir, running)
        undo.callback(remove_running, self.state_dir)

    def _launch(self, guard: Guard) -> None:
        redis_port, port = free_ports(0, self._port)
        self.url = f"http://127.0.0.1:{port}"
        env = self._environment(redis_port, port)

        def start_module(name: str, *arguments: str) -> None:
            # -P: a folder that happens to be called service or worker where `up` is typed must not be ours.
            command = [sys.executable, "-P", "-m", *arguments]
            log = self.log_dir / f"{name}.log"
            self._children.append(Child(name, log, guard, lambda: spawn(command, env=env, cwd=self.state_dir, log=log)))

        folder = self.state_dir / "valkey"
        server = Child(
            "valkey", folder / "valkey.log", guard, lambda: start_server(folder, redis_port, append_only=True)
        )
        self._children = [server]
        start_module("api", "service")
        for number in range(1, self._worker_count + 1):
            start_module(f"worker-{number}", *worker_arguments(number))

    def _environment(self, redis_port: int, port: int) -> dict[str, str]:
        source = str(Path(ascribe.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        return (
            os.environ
            | {
                "ASCRIBE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                "ASCRIBE_DATA_ROOT": str(self.data_root),
                "ASCRIBE_CACHE_DIR": str(self.cache_dir),
                "ASCRIBE_UPLOADS_DIR": str(self.state_dir / "uploads"),
                "ASCRIBE_RESULTS_DIR": str(self.state_dir / "results"),
                "ASCRIBE_HOST": "127.0.0.1",
                "ASCRIBE_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": path,
            }
            | self._extra_env
        )

    def _await_ready(self) -> None:
        """Until the API says it is ready and sees the workers."""
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            for child in self._children:
                child.check()
            if ready_workers(self.url) >= self._worker_count:
                return
            time.sleep(0.1)
        tails = "\n".join(f"--- {child.log}\n{child.tail()}" for child in self._children)
        raise StackError(f"the stack was not ready after {self._start_seconds:g} s; the logs end so:\n{tails}")
