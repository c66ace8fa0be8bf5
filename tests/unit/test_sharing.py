"""Many workers on one job: the same bits however many they are, and whatever becomes of a helper."""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ascribe.job import Job, JobState
from ascribe.ledger.base import Ledger, Part, Policy
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.memory import MemoryLedger
from ascribe.ledger.redis import RedisLedger
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from tests.support.crews import (
    ROWS,
    SHARD_ROWS,
    Team,
    equip,
    ignore,
    make_data,
    name_by_thread,
    settings_for,
    vectors,
)
from tests.support.jobs import VALIDATION, make_spec
from worker.helping import help_with
from worker.pipeline import Bench, helping

SPECS = {
    "gfim": {"output": {"self_influence": True, "role_of_inverse": {"top_directions": 2}}},
    "ekfac": {"curvature": {"kind": "ekfac"}, "solver": {"kind": "eigenbasis"}},
    "gauss_newton": {"curvature": {"kind": "gauss_newton"}, "solver": {"kind": "cg"}},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    make_data(folder / "data")
    return folder / "data"


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    name_by_thread(monkeypatch)


@pytest.fixture(params=["memory", "redis"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger(Policy())
        return
    url = request.getfixturevalue("redis_url")
    opened = RedisLedger(url, tenant=f"t-{uuid.uuid4().hex[:12]}", policy=Policy(), timeout_seconds=3)
    yield opened
    opened.close()


@pytest.fixture
def memory() -> Ledger:
    return MemoryLedger(Policy(lease_seconds=0.5))


@pytest.fixture
def settings(data: Path, tmp_path: Path) -> WorkerSettings:
    return settings_for(tmp_path, data_root=data)


def spec_of(name: str) -> JobSpec:
    return make_spec(**SPECS[name])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """What one worker makes of a spec, with nobody else in sight."""
    known: dict[str, dict[str, bytes]] = {}

    def get(name: str) -> dict[str, bytes]:
        if name not in known:
            ledger = MemoryLedger(Policy())
            team = Team(ledger, settings_for(tmp_path_factory.mktemp("alone"), data_root=data), workers=1)
            known[name] = vectors(ledger, team.run(spec_of(name)))
        return known[name]

    return get


@pytest.mark.parametrize("name", list(SPECS))
def test_two_workers_make_the_bits_of_one(
    ledger: Ledger, settings: WorkerSettings, alone: Callable[[str], dict[str, bytes]], name: str
) -> None:
    job = Team(ledger, settings).run(spec_of(name), helpers=[equip(ledger, settings)])
    assert vectors(ledger, job) == alone(name)
    by_worker = workers_of(job)
    assert by_worker.pop("helper-0") >= SHARD_ROWS
    assert list(by_worker) == ["MainThread"]


def test_four_workers_make_the_bits_of_one_and_all_have_a_share(
    settings: WorkerSettings, alone: Callable[[str], dict[str, bytes]]
) -> None:
    ledger = MemoryLedger(Policy())
    job = Team(ledger, settings, workers=4).run(spec_of("gfim"), helpers=[equip(ledger, settings) for _ in range(3)])
    assert vectors(ledger, job) == alone("gfim")
    shares = workers_of(job)
    assert sorted(shares) == ["MainThread", "helper-0", "helper-1", "helper-2"]
    assert sum(shares.values()) == ROWS + VALIDATION
    assert job.result is not None
    assert job.result.diagnostics.warnings == ()
    stems = {path.name.split("-")[0] for path in settings.cache_dir.glob("*/*/*-0000*.safetensors")}
    assert stems >= {"shard", "sums", "scores"}, "all three kinds of parts were shared"


def test_nothing_is_offered_where_there_is_nobody_else(
    memory: Ledger, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("offer", "take", "standing", "finished_parts"):
        monkeypatch.setattr(memory, name, lambda *_, name=name, **__: asked.append(name))
    job = Team(memory, settings, workers=1).run(spec_of("gfim"))
    assert job.status is JobState.SUCCEEDED
    assert asked == []
    assert not list(settings.cache_dir.rglob("sums-*"))
    assert workers_of(job) == {"MainThread": ROWS + VALIDATION}


class Stranger:
    """Takes one part of every stage that is offered, and does with it whatever the test says."""

    def __init__(self, team: Team, act: Callable[[Part], None]) -> None:
        self._team, self._act = team, act
        self.parts: list[Part] = []

    def __call__(self, job_id: str, _parts: Sequence[str]) -> None:
        self.parts.append(self._team.take(job_id))
        self._act(self.parts[-1])


def test_a_part_whose_worker_is_silent_is_taken_over(
    memory: Ledger, settings: WorkerSettings, alone: Callable[[str], dict[str, bytes]]
) -> None:
    team = Team(memory, settings)
    stranger = Stranger(team, ignore)
    job = team.run(spec_of("gfim"), meet=stranger)
    assert vectors(memory, job) == alone("gfim")
    assert workers_of(job) == {"MainThread": ROWS + VALIDATION}
    assert [part.name.split(":")[0] for part in stranger.parts] == ["gradients", "sums", "scores"]


def test_a_part_that_was_not_done_is_found_missing(
    memory: Ledger, settings: WorkerSettings, alone: Callable[[str], dict[str, bytes]]
) -> None:
    team = Team(memory, settings)
    job = team.run(spec_of("gfim"), meet=Stranger(team, memory.finish))
    assert vectors(memory, job) == alone("gfim")
    assert job.result is not None
    assert job.result.diagnostics.warnings == ()


def test_a_shard_that_is_not_what_was_written_is_computed_again_and_told(
    memory: Ledger, settings: WorkerSettings, alone: Callable[[str], dict[str, bytes]]
) -> None:
    team = Team(memory, settings)

    def harm(part: Part) -> None:
        with helping(memory.spec(part.job_id), Bench(settings), ignore) as do:
            do(part.name)
        stem = {"gradients": "shard", "sums": "sums", "scores": "scores"}[part.name.split(":")[0]]
        (path,) = settings.cache_dir.rglob(f"{stem}-{part.name[-5:]}.safetensors")
        content = bytearray(path.read_bytes())
        content[-100] ^= 16
        path.write_bytes(content)
        memory.finish(part)

    job = team.run(spec_of("gfim"), meet=Stranger(team, harm))
    assert vectors(memory, job) == alone("gfim")
    assert job.result is not None
    harmed = [warning.split(" rows ")[0] for warning in job.result.diagnostics.warnings]
    assert harmed == [
        "cached gradients of the train",
        "cached sums over gradients of the train",
        "cached scores of the train",
    ]


def test_two_workers_that_write_one_shard_leave_it_whole(memory: Ledger, settings: WorkerSettings) -> None:
    meeting = threading.Barrier(2)
    names: list[str] = []

    def write(spec: JobSpec, part: str) -> None:
        with helping(spec, Bench(settings), ignore) as do:
            meeting.wait()
            do(part)

    team = Team(memory, settings)

    def meet(job_id: str, parts: Sequence[str]) -> None:
        names.append(parts[1])
        if len(names) == 1:
            threads = [threading.Thread(target=write, args=[spec_of("gfim"), parts[1]]) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    job = team.run(spec_of("gfim"), meet=meet)
    assert job.status is JobState.SUCCEEDED
    (path,) = settings.cache_dir.rglob(f"shard-{names[0][-5:]}.safetensors")
    facts = Bench(settings).store.files.facts(path)
    assert facts is not None
    assert facts["rows"] == [SHARD_ROWS, 2 * SHARD_ROWS]
    assert {each.suffix for each in path.parent.iterdir() if each.name != ".lock"} == {".safetensors", ".json"}


def declined(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "declined" in record.message]


def test_a_worker_of_another_environment_declines_and_says_why(
    memory: Ledger, settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = equip(memory, settings.model_copy(update={"token_budget": 128, "attention": "eager"}))
    team = Team(memory, settings)

    def meet(job_id: str, parts: Sequence[str]) -> None:
        help_with(job_id, other)

    job = team.run(spec_of("gfim"), meet=meet)
    assert workers_of(job) == {"MainThread": ROWS + VALIDATION}
    records = declined(caplog)
    assert len(records) == 3
    assert {tuple(record.__dict__["differs"]) for record in records} == {("attention", "token_budget")}


def test_a_worker_with_other_rows_declines(
    memory: Ledger, settings: WorkerSettings, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(data, elsewhere)
    rows = (elsewhere / "train.jsonl").read_text()
    (elsewhere / "train.jsonl").write_text(rows.replace("dog", "cat"))
    other = equip(memory, settings.model_copy(update={"data_root": elsewhere}))
    team = Team(memory, settings)

    def meet(job_id: str, parts: Sequence[str]) -> None:
        help_with(job_id, other)

    job = team.run(spec_of("gfim"), meet=meet)
    assert workers_of(job) == {"MainThread": ROWS + VALIDATION}
    assert len(declined(caplog)) == 3


def test_a_part_that_fails_is_the_owners_to_fail_by(
    memory: Ledger, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever computes the third shard runs out of memory."""
    from worker.gradients.per_example import PerExampleGradients

    compute = PerExampleGradients.__call__

    def explode(self: PerExampleGradients, batch: object, first_row: int = 0) -> object:
        if first_row == 2 * SHARD_ROWS:
            raise MemoryError
        return compute(self, batch, first_row)  # type: ignore[arg-type]

    monkeypatch.setattr(PerExampleGradients, "__call__", explode)
    helper = equip(memory, settings)
    job = Team(memory, settings).run(spec_of("gfim"), meet=lambda job_id, _: help_with(job_id, helper))
    assert job.status is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "out_of_memory"
    failures = [record.__dict__["code"] for record in caplog.records if record.message == "help failed"]
    assert failures == ["out_of_memory"], "the helper left after the first"


def test_a_cache_directory_that_goes_away_under_all_of_them(memory: Ledger, settings: WorkerSettings) -> None:
    helper = equip(memory, settings)

    def meet(job_id: str, parts: Sequence[str]) -> None:
        shutil.rmtree(settings.cache_dir)
        help_with(job_id, helper)

    began = time.monotonic()
    job = Team(memory, settings).run(spec_of("gfim"), meet=meet)
    assert job.status is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "storage"
    assert time.monotonic() - began < 30


def test_a_job_that_waits_for_others_can_be_cancelled(settings: WorkerSettings) -> None:
    ledger = MemoryLedger(Policy(lease_seconds=60))
    team = Team(ledger, settings)

    def meet(job_id: str, parts: Sequence[str]) -> None:
        team.take(job_id)
        threading.Timer(1.0, lambda: ledger.request_cancel(job_id)).start()

    began = time.monotonic()
    job = team.run(spec_of("gfim"), meet=meet)
    assert job.status is JobState.CANCELLED
    assert time.monotonic() - began < 20


def test_a_helper_leaves_when_a_job_waits(
    memory: Ledger, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.helping.PATIENCE_SECONDS", 0.0)
    helper, team = equip(memory, settings), Team(memory, settings)
    finished: list[int] = []

    def meet(job_id: str, parts: Sequence[str]) -> None:
        waiting = memory.create(new_job_id(), spec_of("gfim")).job.id
        help_with(job_id, helper)
        finished.append(len(team.finished(job_id)))
        memory.request_cancel(waiting)

    assert team.run(spec_of("gfim"), meet=meet).status is JobState.SUCCEEDED
    assert finished == [1, 1, 1]


def workers_of(job: Job) -> dict[str, int]:
    assert job.result is not None, job.error
    return dict(job.result.diagnostics.workers)
