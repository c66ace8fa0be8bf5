"""Finished jobs whose score vectors are in a file, written as the worker writes them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ascribe.ledger.base import Claim, Ledger
from ascribe.result import MEAN, TOP, TRAIN_ROWS, VALIDATION_ROWS, Manifest, RowInfo, vector_names
from ascribe.results.columns import Columns
from ascribe.results.ranking import pack_top
from ascribe.settings import WorkerSettings
from tests.support.handmade import manifest, pack_rows, scores_of, train_rows
from worker.staging import Insist, Staging

QUERIES = [RowInfo(id=f"q{i}", label="coding", text=f"query {i}") for i in range(3)]


def worker_settings(folder: Path, **more: Any) -> WorkerSettings:
    """Every vector goes to a file in ``folder / "results"``, or wherever ``more`` says."""
    folders = {"cache_dir": folder / "cache", "results_dir": folder / "results"}
    return WorkerSettings(**{"max_redis_result_bytes": 0} | folders | more)


def columns_of(vectors: Mapping[str, Sequence[float]]) -> Columns:
    rows = len(next(iter(vectors.values())))
    return Columns(
        tuple(vectors), rows, lambda start, stop: [array("f", values[start:stop]) for values in vectors.values()]
    )


def claimed(ledger: Ledger, job_id: str, attempt: int = 1) -> Claim:
    claim = ledger.claim(job_id, attempt, "handmade")
    assert claim is not None
    return claim


def staging(ledger: Ledger, claim: Claim, settings: WorkerSettings) -> Staging:
    return Staging(claim, ledger, Insist(1), settings)


def fill(sink: Staging, rows: int = 30) -> tuple[Manifest, dict[str, list[float]]]:
    """Put all vectors that the spec asks for where they belong; what is to be committed, and the vectors."""
    spec = sink.claim.spec
    names = vector_names(spec.output, len(QUERIES), spec.damping_count)
    vectors = {name: scores_of(rows, seed) for seed, name in enumerate(names)}
    stored = sink.spill(columns_of(vectors))
    if stored is None:
        for name, values in vectors.items():
            sink.stage(name, [array("f", values).tobytes()])
    else:
        sink.stage(TOP, [pack_top(array("f", vectors[MEAN]))])
    infos = train_rows(rows)
    sink.stage(TRAIN_ROWS, [pack_rows(infos)])
    sink.stage(VALIDATION_ROWS, [pack_rows(QUERIES)])
    done = manifest(spec, vectors, infos)
    return done.model_copy(update={"validation_rows": len(QUERIES), "stored": stored}), vectors


def finish(ledger: Ledger, job_id: str, settings: WorkerSettings, rows: int = 30) -> dict[str, list[float]]:
    """Play the worker for a queued job; the same scores wherever they are kept."""
    claim = claimed(ledger, job_id)
    with staging(ledger, claim, settings) as sink:
        done, vectors = fill(sink, rows)
        ledger.commit(claim, done)
    return vectors
