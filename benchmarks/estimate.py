"""What jobs were expected to take of memory and disk, beside what they took; each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.language import CHECKPOINT, write_completions, write_language_model
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject

MIB = 2**20
GOAL = 0.25
PRODUCTS = {"kind": "gauss_newton", "form": "products"}
_CHOLESKY = {"curvature": {"kind": "gfim"}, "solver": {"kind": "cholesky"}}
MEAN_ALONE = {"per_validation_row": False}


@dataclass(frozen=True)
class _Job:
    """``spec`` and ``settings`` are changes to those of :meth:`Subject.spec` and of a worker."""

    name: str
    train: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """Jobs that take their memory for different things."""
    validation = subject.write_rows("validation", sizes.queries, sizes.tokens)
    for job in islice(_classifying(subject, sizes), sizes.estimates):
        yield from _rows(job, subject.data_root, subject.spec(job.train, validation, **job.spec).model_dump_json())
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_language_model(root, subject)
        for job in islice(_completing(subject, sizes, root), sizes.estimates):
            yield from _rows(job, root, subject.spec(job.train, "validation.jsonl", **job.spec).model_dump_json())


def _classifying(subject: Subject, sizes: Sizes) -> Iterator[_Job]:
    many, few = sizes.rows // 2, max(sizes.rows // 20, 16)

    def rows(count: int, tokens: int = sizes.tokens) -> str:
        return subject.write_rows(f"estimate-{count}-{tokens}", count, tokens)

    yield _Job("gfim, schulz", rows(many))
    ekfac = {"curvature": {"kind": "ekfac"}, "solver": {"kind": "eigenbasis"}, "output": MEAN_ALONE}
    yield _Job("ekfac, batches of 4096 tokens", rows(2 * few), ekfac, {"token_budget": 4096})
    from_rows = {"curvature": {"kind": "gauss_newton", "form": "rows"}, "solver": {"kind": "cholesky"}}
    yield _Job("gauss_newton from rows, cholesky", rows(few), from_rows)
    few_steps = {"solver": {"kind": "cg", "tolerance": 0.5}, "damping": {"relative": 100.0}, "output": MEAN_ALONE}
    yield _Job("gauss_newton by products, cg", rows(few // 2), few_steps | {"curvature": PRODUCTS})
    narrow = {"base": subject.base, "adapter": subject.adapter, "dtype": "bfloat16"}
    plain = {"curvature": {"kind": "none"}, "solver": {"kind": "identity"}}
    everything = {
        "model": {"base": subject.base},
        "parameters": {"select": "modules", "modules": ["*"], "projection": {"long_side": 16, "short_side": 16}},
    }
    yield _Job("all weights projected, no curvature", rows(few), plain | everything)
    yield _Job("gfim of recomputed gradients, cholesky", rows(few), _CHOLESKY | {"gradients": "recomputed"})
    yield _Job("no curvature, bfloat16, long rows", rows(few, 3 * sizes.tokens), plain | {"model": narrow})


def _completing(subject: Subject, sizes: Sizes, root: Path) -> Iterator[_Job]:
    model = {"task": "causal-lm", **CHECKPOINT}
    train = write_completions(root, subject, "train", max(sizes.rows // 40, 8), sizes.tokens)
    write_completions(root, subject, "validation", 2, sizes.tokens)
    cholesky = {"curvature": {"kind": "empirical_fisher"}, "solver": {"kind": "cholesky"}}
    yield _Job("language model, empirical_fisher", train, {"model": model} | cholesky)
    narrow = {"model": model | {"dtype": "bfloat16"}, "curvature": {"kind": "kfac"}, "solver": {"kind": "eigenbasis"}}
    yield _Job("language model, kfac, bfloat16", train, narrow)


def _rows(job: _Job, root: Path, spec: str) -> Iterator[Row]:
    with TemporaryDirectory() as cache:
        settings = json.dumps({"data_root": str(root), "cache_dir": cache, **job.settings})
        command = [sys.executable, "-m", "benchmarks.child", settings, spec]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path.cwd())
    took = json.loads(done.stdout.splitlines()[-1])
    for what, expected, measured in (
        ("memory", took["estimated_memory_bytes"], took["peak_memory_bytes"]),
        ("disk", took["estimated_disk_bytes"], took["disk_bytes"]),
    ):
        yield Row(
            f"{what}, expected / taken: {job.name}",
            expected / measured,
            "x",
            f"{expected / MIB:.0f} MiB",
            f"{measured / MIB:.0f} MiB",
            f"{took['rows']} rows",
            within=GOAL,
        )
