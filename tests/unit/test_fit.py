"""Batches for which memory runs out: halved, remembered, told; with a pretended allocator and with the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ascribe.errors import OutOfMemory
from ascribe.result import MEAN
from tests.support.jobs import LANGUAGE_MODEL, make_spec, make_workshop
from worker import memory
from worker.curvature.jacobian import LogitsJacobian, Middle
from worker.data import Batch, Targets
from worker.fit import BatchFit
from worker.gradients.per_example import PerExampleGradients

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


def _batch(rows: int, tokens: int, start: int = 0) -> Batch:
    mask = torch.ones(rows, tokens, dtype=torch.long)
    ids = torch.arange(rows * tokens).view(rows, tokens)
    return Batch(tuple(range(start, start + rows)), {"input_ids": ids, "attention_mask": mask}, torch.arange(rows))


class Pretended:
    """Work with room for so many tokens, which notes what it was given."""

    def __init__(self, room: int, error: Callable[[], Exception] = lambda: RuntimeError(ALLOCATOR)) -> None:
        self.room, self.error = room, error
        self.tried: list[int] = []
        self.kept: list[int] = []

    def __call__(self, batch: Batch) -> Tensor:
        self.tried.append(batch.tokens)
        if batch.tokens > self.room:
            raise self.error()
        return batch.labels_M

    def keep(self, batch: Batch, labels_M: Tensor) -> None:
        assert len(batch.positions) == len(labels_M)
        self.kept += batch.positions


@pytest.mark.parametrize(
    "error", [lambda: RuntimeError(ALLOCATOR), MemoryError, lambda: torch.OutOfMemoryError("CUDA out of memory")]
)
def test_a_batch_is_halved_until_it_fits_and_later_ones_start_there(error: Callable[[], Exception]) -> None:
    fit, work = BatchFit(), Pretended(30, error)
    fit.run(_batch(11, 10), work, work.keep)
    assert work.kept == list(range(11)), "every row once, in order"
    assert work.tried[:3] == [110, 50, 20]
    work.tried.clear()
    fit.run(_batch(4, 10, start=11), work, work.keep)
    assert work.kept == list(range(15))
    assert work.tried == [20, 20], "40 are known not to fit"
    assert fit.tokens == 25
    assert "halved to at most 25 padded tokens" in fit.warnings(0)[0]
    assert fit.warnings(fit.halved) == ()


def test_a_row_that_does_not_fit_is_told_with_what_to_change() -> None:
    work = Pretended(9)
    with pytest.raises(OutOfMemory, match="a single row of 10 tokens") as raised:
        BatchFit().run(_batch(4, 10), work, work.keep)
    assert [problem.pointer for problem in raised.value.errors] == ["/model/max_length"]


def test_another_error_is_not_taken_for_it() -> None:
    fit, work = BatchFit(), Pretended(9, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        fit.run(_batch(4, 10), work, work.keep)
    assert (work.tried, fit.tokens) == ([40], None)


def test_a_longer_row_alone_is_tried_whatever_is_known() -> None:
    fit, work = BatchFit(tokens=5), Pretended(10)
    fit.run(_batch(1, 10), work, work.keep)
    assert work.kept == [0]


def test_parts_of_a_batch_have_their_rows_targets() -> None:
    counts, places = [2, 1, 3], torch.tensor([3, 4, 0, 1, 2, 3])
    batch = _batch(3, 6)
    whole = Batch(batch.positions, batch.inputs, torch.arange(6), Targets.of(counts, places))
    part = whole.rows(1, 3)
    assert part.targets is not None
    assert part.positions == (1, 2)
    assert part.labels_M.tolist() == [2, 3, 4, 5]
    assert part.targets.row_M.tolist() == [0, 1, 1, 1]
    assert part.targets.place_M.tolist() == [0, 1, 2, 3]
    assert torch.equal(part.inputs["input_ids"], batch.inputs["input_ids"][1:])


def _with_room_for(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    differentiate, sandwich = PerExampleGradients.differentiate, LogitsJacobian.sandwich

    def tight(self: PerExampleGradients, batch: Batch, start: int = 0) -> object:
        if batch.tokens > tokens:
            raise RuntimeError(ALLOCATOR)
        return differentiate(self, batch, start)

    def tight_product(self: LogitsJacobian, batch: Batch, middle: Middle, x_PK: Tensor) -> Tensor:
        if batch.tokens > tokens:
            raise RuntimeError(ALLOCATOR)
        return sandwich(self, batch, middle, x_PK)

    monkeypatch.setattr(PerExampleGradients, "differentiate", tight)
    monkeypatch.setattr(LogitsJacobian, "sandwich", tight_product)


@pytest.mark.parametrize(
    ("curvature", "solver", "rows"),
    [("kfac", "eigenbasis", 40), ("ekfac", "eigenbasis", 20), ("gauss_newton", "cg", 12)],
)
def test_a_job_goes_on_in_smaller_batches_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curvature: str, solver: str, rows: int
) -> None:
    """A language model's: gradients, factors, and products with the model."""
    changes = {"damping": {"relative": 20.0}, "output": {"per_validation_row": False}}  # few steps
    train = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": rows}
    spec = make_spec(curvature, solver, model=LANGUAGE_MODEL, train=train, **changes)
    plain, expected = make_workshop(tmp_path / "plain", task="causal-lm").run(spec)
    assert not any("halved" in warning for warning in plain.diagnostics.warnings)
    _with_room_for(30, monkeypatch)
    workshop = make_workshop(tmp_path / "tight", task="causal-lm")
    manifest, found = workshop.run(spec)
    (warning,) = [warning for warning in manifest.diagnostics.warnings if "halved" in warning]
    assert "padded tokens" in warning
    difference = (found.vector(MEAN) - expected.vector(MEAN)).norm() / expected.vector(MEAN).norm()
    assert difference < 1e-5
    again, _ = workshop.run(spec.model_copy(update={"seed": 1}))
    assert again.diagnostics.cache["train"].hit_rows == again.train_rows, "the same gradients under the same key"


def test_a_job_with_a_row_too_large_fails_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_room_for(4, monkeypatch)
    workshop = make_workshop(tmp_path)
    with pytest.raises(OutOfMemory, match="a single row of"):
        workshop.run(make_spec())


LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from ascribe.job import Phase
from tests.support.jobs import Shelf, make_spec
from tests.support.tiny import make_checkpoint, make_rows, write_rows
from ascribe.settings import WorkerSettings
from worker.pipeline import Bench, run
from worker.progress import Reporter
from worker.sharing import Alone

folder = Path(sys.argv[1])
make_checkpoint(folder, hidden_size=128, intermediate_size=1024)
rows = make_rows(1200)
for row in rows:  # of one length: all in one batch
    row["text"] = " ".join((row["text"].split() * 12)[:12])
write_rows(folder / "train.jsonl", rows[:1000])
write_rows(folder / "validation.jsonl", rows[1000:1010])

def scores(name, room, **settings):
    def limit(progress):
        caching = progress.phase is Phase.CACHING_GRADIENTS
        resource.setrlimit(resource.RLIMIT_AS, (room if caching else resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return False

    bench = Bench(WorkerSettings(data_root=folder, cache_dir=folder / name, shard_rows=1000, **settings))
    spec, shelf = make_spec("gfim", "cholesky", output={"per_validation_row": False}), Shelf()
    manifest = run(spec, bench, Reporter(limit), shelf, Alone())
    return shelf.vector("mean"), manifest.diagnostics.warnings

expected, _ = scores("free", resource.RLIM_INFINITY, token_budget=512)
pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + (128 << 20)
found, warnings = scores("tight", room, token_budget=100_000)
print(json.dumps({"difference": float((found - expected).norm() / expected.norm()), "warnings": warnings}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited as Linux does")
def test_the_allocator_itself_refuses_and_the_job_goes_on(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], check=True, stdout=subprocess.PIPE, env=environment
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["difference"] < 1e-5
    assert any("batches were halved" in warning for warning in answer["warnings"])


def test_a_group_with_less_memory_than_the_machine_counts(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text("5:cpu:/x\n0::/slice/ours\n")
    machine = memory.there_bytes(groups, tmp_path / "none")
    assert machine > 256 << 20
    (tmp_path / "fs" / "slice" / "ours").mkdir(parents=True)
    (tmp_path / "fs" / "slice" / "ours" / "memory.max").write_text("max\n")
    assert memory.there_bytes(groups, tmp_path / "fs") == machine
    (tmp_path / "fs" / "slice" / "memory.max").write_text(f"{128 << 20}\n")
    assert memory.there_bytes(groups, tmp_path / "fs") == 128 << 20
    (tmp_path / "fs" / "memory").mkdir()
    (tmp_path / "fs" / "memory" / "memory.limit_in_bytes").write_text(f"{64 << 20}\n")
    groups.write_text("4:memory:/elsewhere\n")
    assert memory.there_bytes(groups, tmp_path / "fs") == 64 << 20, "in a container the path is that outside of it"
