"""One attribution job, top to bottom: load, gradients, curvature, damp, solve, scores, write.

Knows neither Celery nor Redis: progress goes to a reporter, vectors to a sink.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ascribe.job import Phase
from ascribe.result import (
    MEAN,
    SELF_INFLUENCE,
    TRAIN_LOSS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    CacheUse,
    Diagnostics,
    Manifest,
    Provenance,
    Reuse,
    RowInfo,
    validation_vector,
)
from ascribe.settings import WorkerSettings
from ascribe.sources.rows import Labels, Rows
from ascribe.spec import JobSpec
from ascribe.store import Store
from worker import memory
from worker.blocks import SolvedBlocks, solve_blocks
from worker.environment import versions
from worker.gradients.cache import Gradients
from worker.gradients.collect import collect
from worker.inputs import Inputs, fingerprint_of, load_inputs
from worker.models import ModelCache
from worker.progress import Reporter
from worker.scores.influence import influence
from worker.scores.summary import summarize

CHUNK_BYTES = 1 << 20


class Sink(Protocol):
    """Where vectors go: the ledger's staging area in a worker, a dict in a test."""

    def stage(self, name: str, chunks: Iterable[bytes]) -> None: ...

    def announce(self, gradient_fingerprint: str, rows: int) -> None: ...


@dataclass(frozen=True)
class Bench:
    """What a worker process keeps between jobs."""

    settings: WorkerSettings
    models: ModelCache = field(default_factory=ModelCache)

    @cached_property
    def store(self) -> Store:
        """What is on disk between jobs, and what this process has verified of it."""
        return Store(
            self.settings.cache_dir,
            max_bytes=self.settings.cache_max_bytes,
            reserve_bytes=self.settings.cache_reserve_bytes,
        )


def run(spec: JobSpec, bench: Bench, reporter: Reporter, sink: Sink) -> Manifest:
    """Do the job and stage its vectors; the caller commits the returned manifest.

    Raises:
        AscribeError: with the reason, for whatever the input, the data or the numbers make impossible.
        Cancelled: from the reporter, at a batch.
    """
    with ExitStack() as held:  # store entries the job reads, until its last vector is staged
        return _run(spec, bench, reporter, sink, held)


def _run(spec: JobSpec, bench: Bench, reporter: Reporter, sink: Sink, held: ExitStack) -> Manifest:
    memory.reset_peak()
    torch.set_num_threads(bench.settings.threads)
    with reporter.phase(Phase.LOADING):
        inputs = load_inputs(spec, bench.settings)
    with reporter.phase(Phase.CACHING_GRADIENTS, len(inputs.train) + len(inputs.validation)):
        train = _gradients(inputs.train, "/train", spec, inputs, bench, reporter, sink, held)
        validation = _gradients(inputs.validation, "/validation", spec, inputs, bench, reporter, sink, held)
    solved = solve_blocks(
        spec,
        inputs.checkpoint.blocks,
        train,
        validation,
        reporter,
        store=bench.store,
        gradient_fingerprint=fingerprint_of(inputs.train, inputs, spec, bench.settings),
    )
    with reporter.phase(Phase.SCORING, len(train.shards)):
        score_QN = _scores(solved, train, reporter)
    vectors = _vectors(spec, score_QN, solved, train)
    train_rows = _row_infos(inputs.train, inputs.labels, bench.settings.preview_characters)
    with reporter.phase(Phase.WRITING, len(vectors) + 2):
        for name, vector_N in vectors.items():
            sink.stage(name, _chunks(vector_N.to(torch.float32).numpy().astype("<f4").tobytes()))
            reporter.advance()
        sink.stage(TRAIN_ROWS, _chunks(_packed(train_rows)))
        validation_rows = _row_infos(inputs.validation, inputs.labels, bench.settings.preview_characters)
        sink.stage(VALIDATION_ROWS, _chunks(_packed(validation_rows)))
    return Manifest(
        train_rows=len(inputs.train),
        validation_rows=len(inputs.validation),
        parameters=inputs.checkpoint.parameters,
        vectors=tuple(vectors),
        diagnostics=_diagnostics(solved, inputs, train, validation, reporter),
        provenance=_provenance(spec, inputs, bench.settings),
        summary=summarize(vectors[MEAN], train_rows),
    )


def _gradients(
    rows: Rows,
    pointer: str,
    spec: JobSpec,
    inputs: Inputs,
    bench: Bench,
    reporter: Reporter,
    sink: Sink,
    held: ExitStack,
) -> Gradients:
    fingerprint = fingerprint_of(rows, inputs, spec, bench.settings)
    gradients = collect(
        rows,
        inputs.checkpoint,
        lambda: bench.models.get(inputs.key, inputs.checkpoint, spec.model),
        store=bench.store,
        folder=held.enter_context(bench.store.open("gradients", fingerprint)),
        max_length=spec.model.max_length,
        settings=bench.settings,
        pointer=pointer,
        on_rows=lambda count, found: reporter.advance(count, found=found),
    )
    sink.announce(fingerprint, len(rows))
    return gradients


def _vectors(spec: JobSpec, score_QN: Tensor, solved: SolvedBlocks, train: Gradients) -> dict[str, Tensor]:
    """Named score vectors ``[N]``; the mean over the validation rows is the last row of ``score_QN``."""
    vectors = {MEAN: score_QN[-1], TRAIN_LOSS: train.loss_N}
    if solved.self_influence_N is not None:
        vectors[SELF_INFLUENCE] = solved.self_influence_N
    if spec.output.per_validation_row:
        vectors |= {validation_vector(q): score_QN[q] for q in range(len(score_QN) - 1)}
    return vectors


def _scores(solved: SolvedBlocks, train: Gradients, reporter: Reporter) -> Tensor:
    parts = []
    for shard in train.shards:
        parts.append(influence([shard], solved.ihvp_QP, "all blocks"))
        reporter.advance()
    return torch.cat(parts, dim=1)


def _row_infos(rows: Rows, labels: Labels, preview: int) -> list[RowInfo]:
    pairs = rows.text_pairs or ("",) * len(rows)
    return [
        RowInfo(id=identifier, label=labels.name(label), text=f"{text} ⏎ {pair}"[:preview] if pair else text[:preview])
        for identifier, text, pair, label in zip(rows.ids, rows.texts, pairs, rows.labels, strict=True)
    ]


def _packed(rows: list[RowInfo]) -> bytes:
    return zlib.compress("\n".join(row.model_dump_json() for row in rows).encode())


def _chunks(data: bytes) -> Iterable[bytes]:
    return (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))


def _diagnostics(
    solved: SolvedBlocks, inputs: Inputs, train: Gradients, validation: Gradients, reporter: Reporter
) -> Diagnostics:
    worst = max((block.status for block in solved.diagnostics), key=lambda status: status.severity)
    bounds = [block.condition_bound for block in solved.diagnostics if block.condition_bound]
    return Diagnostics(
        status=worst,
        advice=worst.advice,
        worst_relative_residual=max(block.relative_residual for block in solved.diagnostics),
        largest_condition_bound=max(bounds) if bounds else None,
        iterations=max(block.iterations for block in solved.diagnostics),
        products=sum(block.products for block in solved.diagnostics),
        blocks=solved.diagnostics,
        seconds={**reporter.seconds, "total": sum(reporter.seconds.values())},
        peak_memory_bytes=memory.peak_bytes(),
        cache={
            "train": CacheUse(hit_rows=train.hit_rows, rows=train.rows),
            "validation": CacheUse(hit_rows=validation.hit_rows, rows=validation.rows),
        },
        reused={
            "gradients": Reuse(
                reused=train.hit_rows + validation.hit_rows,
                of=train.rows + validation.rows,
                keeps="the gradient of a row",
            ),
            **solved.reused,
        },
        warnings=(*inputs.checkpoint.warnings, *train.warnings, *validation.warnings, *solved.warnings),
    )


def _provenance(spec: JobSpec, inputs: Inputs, settings: WorkerSettings) -> Provenance:
    return Provenance(
        base_sha256=inputs.key.base_sha256,
        adapter_sha256=inputs.key.adapter_sha256,
        train_sha256=inputs.train.sha256,
        validation_sha256=inputs.validation.sha256,
        gradient_fingerprint=fingerprint_of(inputs.train, inputs, spec, settings),
        versions=versions(),
        attention=settings.attention,
        token_budget=settings.token_budget,
        device=settings.device,
        seed=spec.seed,
    )
