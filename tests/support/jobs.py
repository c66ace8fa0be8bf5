"""Specs, a sink and a bench for running the pipeline in the test's own process."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascribe.job import Progress
from ascribe.result import Manifest
from ascribe.results.columns import Columns
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec, Task
from tests.support.tiny import make_causal_lm, make_checkpoint, make_completions, make_rows, write_rows
from worker.pipeline import Bench, run
from worker.progress import Reporter
from worker.sharing import Alone

TRAIN, VALIDATION = 40, 6


@dataclass
class Shelf:
    """A sink in memory."""

    staged: dict[str, bytes] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        self.staged[name] = b"".join(chunks)

    def spill(self, columns: Columns) -> None:
        """All vectors are staged."""

    def announce(self, gradient_fingerprint: str, rows: int) -> None:
        self.announced[gradient_fingerprint] = rows

    def vector(self, name: str) -> Tensor:
        return torch.frombuffer(bytearray(self.staged[name]), dtype=torch.float32)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in zlib.decompress(self.staged[name]).decode().split("\n")]


@dataclass(frozen=True)
class Workshop:
    """A data root with a tiny model, and a worker's bench over it."""

    root: Path
    bench: Bench

    def run(self, spec: JobSpec, seen: list[Progress] | None = None) -> tuple[Manifest, Shelf]:
        shelf = Shelf()

        def send(progress: Progress) -> bool:
            if seen is not None:
                seen.append(progress)
            return False

        return run(spec, self.bench, Reporter(send), shelf, Alone()), shelf


def make_workshop(folder: Path, *, task: Task = "sequence-classification", **settings: Any) -> Workshop:
    root = folder / "data"
    if task == "causal-lm":
        make_causal_lm(root)
        rows = make_completions(TRAIN + VALIDATION)
    else:
        make_checkpoint(root)
        rows = make_rows(TRAIN + VALIDATION)
    write_rows(root / "train.jsonl", rows[:TRAIN])
    write_rows(root / "validation.jsonl", rows[TRAIN:])
    options = {"shard_rows": 16, "token_budget": 64} | settings
    return Workshop(root, Bench(WorkerSettings(data_root=root, cache_dir=folder / "cache", **options)))


def make_spec(
    curvature: str | dict[str, Any] = "gfim", solver: str | dict[str, Any] = "schulz", **changes: Any
) -> JobSpec:
    """``curvature``, ``solver``: its kind, or the whole of it."""
    return JobSpec.model_validate(
        {
            "model": {"base": "base", "adapter": "adapter"},
            "train": {"source": {"kind": "file", "path": "train.jsonl"}},
            "validation": {"source": {"kind": "file", "path": "validation.jsonl"}},
            "curvature": {"kind": curvature} if isinstance(curvature, str) else curvature,
            "solver": {"kind": solver} if isinstance(solver, str) else solver,
        }
        | changes
    )


LANGUAGE_MODEL = {"task": "causal-lm", "base": "base", "adapter": "adapter"}


def no_help(spec: JobSpec, on_rows: Callable[[int], None]) -> AbstractContextManager[Callable[[str], None]]:
    """For a worker whose jobs have no parts: it is never called."""
    raise NotImplementedError
