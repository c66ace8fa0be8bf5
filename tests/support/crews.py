"""Several workers over one ledger, each a thread of the test with its own bench and name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ascribe.job import Job
from ascribe.ledger.base import Claim, Ledger, Part
from ascribe.ledger.ids import new_job_id
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from tests.support.jobs import VALIDATION
from tests.support.tiny import make_checkpoint, make_rows, write_rows
from worker import pipeline
from worker.attempt import Equipment, attend
from worker.environment import environment_key, worker_info
from worker.helping import help_with
from worker.pipeline import Bench
from worker.sharing import Crew

ROWS, SHARD_ROWS = 160, 16
SHARDS = ROWS // SHARD_ROWS
Do = Callable[[str], None]
Meet = Callable[[str, Sequence[str]], None]
"""(job id, the parts of a stage)"""


def name_by_thread(monkeypatch: Any) -> None:
    """A worker's name is its process's; here it is its thread's."""
    for module in ("worker.attempt", "worker.helping", "worker.environment"):
        monkeypatch.setattr(f"{module}.worker_name", lambda: threading.current_thread().name)


def make_data(root: Path) -> None:
    make_checkpoint(root)
    rows = make_rows(ROWS + VALIDATION)
    write_rows(root / "train.jsonl", rows[:ROWS])
    write_rows(root / "validation.jsonl", rows[ROWS:])


def settings_for(folder: Path, **changes: Any) -> WorkerSettings:
    """``folder`` has the data; the cache goes beside it."""
    options: dict[str, Any] = {"shard_rows": SHARD_ROWS, "token_budget": 64, "lease_seconds": 20.0} | changes
    return WorkerSettings(**{"data_root": folder / "data", "cache_dir": folder / "cache", **options})


def equip(ledger: Ledger, settings: WorkerSettings, wrap: Callable[[Crew], Crew] = lambda crew: crew) -> Equipment:
    """A worker that the ledger sees. ``wrap`` stands between a job and its crew."""
    bench = Bench(settings)
    return Equipment(
        settings,
        ledger,
        lambda spec, reporter, sink, crew: pipeline.run(spec, bench, reporter, sink, wrap(crew)),
        lambda spec, on_rows: pipeline.helping(spec, bench, on_rows),
    )


@dataclass
class Meeting:
    """A crew whose owner lets ``meet`` happen in its first part of every stage: others get their chance, for sure."""

    crew: Crew
    meet: Callable[[Sequence[str]], None]

    @property
    def me(self) -> str:
        return self.crew.me

    def has_company(self) -> bool:
        return self.crew.has_company()

    def do(self, parts: Sequence[str], work: Do, done: Callable[[str, str], None]) -> None:
        waiting = iter([lambda: self.meet(parts)])

        def met(part: str) -> None:
            next(waiting, bool)()
            work(part)

        self.crew.do(parts, met, done)


class Team:
    """The owner in the test's thread, and ``helpers`` that answer calls until the job has ended."""

    def __init__(self, ledger: Ledger, settings: WorkerSettings, *, workers: int = 2) -> None:
        self.ledger, self.settings = ledger, settings
        for number in range(workers):
            info = replace(worker_info(settings), worker=f"worker-{number}")
            ledger.register_worker(info, 600)

    def run(self, spec: JobSpec, *, meet: Meet | None = None, helpers: Sequence[Equipment] = ()) -> Job:
        """``meet`` is called with the parts of each stage once they are offered; left out, every helper must do one."""
        job_id = self.ledger.create(new_job_id(), spec).job.id
        met = partial(meet or self._until_helped(len(helpers)), job_id)
        with self._helping(job_id, helpers):
            attend(job_id, 1, equip(self.ledger, self.settings, lambda crew: Meeting(crew, met)))
        return self.ledger.get(job_id)

    def take(self, job_id: str) -> Part:
        """A part for a stranger."""
        part = self.ledger.take(job_id, "stranger", environment_key(self.settings))
        assert part is not None
        return part

    def finished(self, job_id: str) -> Sequence[tuple[str, str]]:
        """Parts of the stage that runs, in the first attempt."""
        return self.ledger.finished_parts(Claim(job_id, 1, 1, "observer", self.ledger.spec(job_id)))

    def _until_helped(self, helpers: int) -> Meet:
        def meet(job_id: str, parts: Sequence[str]) -> None:
            deadline = time.monotonic() + 60
            while len(parts) > helpers > 0 and len({worker for _, worker in self.finished(job_id)}) < helpers:
                assert time.monotonic() < deadline
                time.sleep(0.005)

        return meet

    @contextmanager
    def _helping(self, job_id: str, helpers: Sequence[Equipment]) -> Iterator[None]:
        ended = threading.Event()

        def answer(equipment: Equipment) -> None:
            while not ended.wait(0.005):
                help_with(job_id, equipment)

        threads = [
            threading.Thread(target=answer, args=[equipment], name=f"helper-{number}")
            for number, equipment in enumerate(helpers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def vectors(ledger: Ledger, job: Job) -> dict[str, bytes]:
    assert job.result is not None, job.error
    return {name: b"".join(ledger.read(job.id, name)) for name in job.result.vectors}


def ignore(*_: object) -> None:
    """For whatever calls back."""
