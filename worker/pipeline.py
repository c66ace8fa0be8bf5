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
from ascribe.planning.choose import plan
from ascribe.planning.from_spec import caches_rows, choice_of, problem_of, with_solver
from ascribe.result import (
    MEAN,
    PLAIN_PRODUCT,
    SELF_INFLUENCE,
    TOP_REMOVED,
    TRAIN_LOSS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    CacheUse,
    Choice,
    Diagnostics,
    Manifest,
    Provenance,
    Reuse,
    RowInfo,
    at_damping,
    validation_vector,
)
from ascribe.settings import WorkerSettings
from ascribe.sources.rows import Labels, Rows
from ascribe.spec import AutoSolver, JobSpec
from ascribe.store import Store
from ascribe.store.remote import open_remote
from worker import memory
from worker.blocks import SolvedBlocks, solve_blocks
from worker.curvatures.choose import open_curvatures
from worker.describe import worst_of
from worker.environment import versions
from worker.gradients.cache import Gradients
from worker.gradients.collect import collect
from worker.gradients.cotangents import Cotangent, OfLoss
from worker.inputs import Inputs, fingerprint_of, load_inputs
from worker.models import ModelCache
from worker.passes import TrainPasses
from worker.progress import Reporter
from worker.scored import Scored, damping_path, role_of_inverse, score_rows
from worker.scores.summary import summarize

CHUNK_BYTES = 1 << 20
LOSS = OfLoss()


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
            remote=open_remote(self.settings),
        )


def run(spec: JobSpec, bench: Bench, reporter: Reporter, sink: Sink) -> Manifest:
    """Do the job and stage its vectors; the caller commits the returned manifest.

    Raises:
        AscribeError: with the reason, for whatever the input, the data or the numbers make impossible.
        Cancelled, Draining: from the reporter, at a batch.
    """
    with ExitStack() as held:  # store entries the job reads, until its last vector is staged
        return _run(spec, bench, reporter, sink, held)


def _run(spec: JobSpec, bench: Bench, reporter: Reporter, sink: Sink, held: ExitStack) -> Manifest:
    memory.reset_peak()
    torch.set_num_threads(bench.settings.threads)
    with reporter.phase(Phase.LOADING):
        inputs = load_inputs(spec, bench.settings)
    planned = _planned(spec, inputs, bench.settings)
    spec = planned.spec
    with reporter.phase(Phase.CACHING_GRADIENTS, len(inputs.train) + len(inputs.validation)):
        train = _gradients(inputs.train, "/train", spec, inputs, bench, reporter, sink, held)
        validation = _gradients(inputs.validation, "/validation", spec, inputs, bench, reporter, sink, held)
    passes = TrainPasses(
        spec,
        inputs,
        bench.settings,
        reporter,
        load=lambda: bench.models.get(inputs.key, inputs.checkpoint, spec.model),
        collect=lambda of: _gradients(inputs.train, "/train", spec, inputs, bench, reporter, sink, held, of),
    )
    solved = solve_blocks(
        spec,
        open_curvatures(spec, inputs.checkpoint.blocks, train, passes, cached_rows=planned.cached_rows),
        train,
        validation,
        reporter,
        store=bench.store,
        gradient_fingerprint=fingerprint_of(inputs.train, inputs, spec, bench.settings),
    )
    with reporter.phase(Phase.SCORING, len(train.shards)):
        scored = score_rows(solved, train, reporter)
    vectors = _vectors(spec, scored, solved, train)
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
        diagnostics=_diagnostics(planned, solved, scored, inputs, train, validation, reporter),
        provenance=_provenance(spec, inputs, bench.settings, solved.solution_fingerprint),
        summary=summarize(vectors[MEAN], train_rows),
    )


@dataclass(frozen=True, slots=True)
class Planned:
    """The spec with a solver that has a name, and what decided it."""

    spec: JobSpec
    choice: Choice | None
    cached_rows: bool


def _planned(spec: JobSpec, inputs: Inputs, settings: WorkerSettings) -> Planned:
    """Raises LimitExceeded: no solver can do it."""
    blocks, rows, classes = inputs.checkpoint.blocks, len(inputs.train), inputs.checkpoint.num_labels
    cached_rows = caches_rows(spec, blocks, train_rows=rows, classes=classes, settings=settings)
    if not isinstance(spec.solver, AutoSolver):
        return Planned(spec, None, cached_rows)
    problem = problem_of(
        spec, blocks, train_rows=rows, validation_rows=len(inputs.validation), classes=classes, settings=settings
    )
    choice = choice_of(plan(problem))
    return Planned(with_solver(spec, choice.pick), choice, cached_rows)


def _gradients(
    rows: Rows,
    pointer: str,
    spec: JobSpec,
    inputs: Inputs,
    bench: Bench,
    reporter: Reporter,
    sink: Sink,
    held: ExitStack,
    of: Cotangent = LOSS,
) -> Gradients:
    fingerprint = fingerprint_of(rows, inputs, spec, bench.settings, of.key)
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
        of=of,
    )
    if of is LOSS:
        sink.announce(fingerprint, len(rows))
    return gradients


def _vectors(spec: JobSpec, scored: Scored, solved: SolvedBlocks, train: Gradients) -> dict[str, Tensor]:
    """Named score vectors ``[N]``; the mean over the validation rows is the last row of every ``score_QN``."""
    vectors = {}
    for place, (score_QN, value) in enumerate(zip(scored.values, solved.values, strict=True)):
        vectors[at_damping(MEAN, place)] = score_QN[-1]
        if spec.output.per_validation_row:
            vectors |= {at_damping(validation_vector(q), place): score_QN[q] for q in range(len(score_QN) - 1)}
        if value.self_influence_N is not None:
            vectors[at_damping(SELF_INFLUENCE, place)] = value.self_influence_N
    if scored.plain_QN is not None and scored.without_top_QN is not None:
        vectors |= {PLAIN_PRODUCT: scored.plain_QN[-1], TOP_REMOVED: scored.without_top_QN[-1]}
    return vectors | {TRAIN_LOSS: train.loss_N}


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
    planned: Planned,
    solved: SolvedBlocks,
    scored: Scored,
    inputs: Inputs,
    train: Gradients,
    validation: Gradients,
    reporter: Reporter,
) -> Diagnostics:
    blocks = tuple(solved.values[0].diagnostics)
    figures = worst_of(blocks)
    return Diagnostics(
        status=figures.status,
        advice=figures.status.advice,
        worst_relative_residual=figures.relative_residual,
        largest_condition_bound=figures.condition_bound,
        iterations=figures.iterations,
        products=figures.products,
        blocks=blocks,
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
        choice=planned.choice,
        damping_path=damping_path(planned.spec, solved, scored),
        role_of_inverse=role_of_inverse(planned.spec, scored),
        warnings=(*inputs.checkpoint.warnings, *train.warnings, *validation.warnings, *solved.warnings),
    )


def _provenance(
    spec: JobSpec, inputs: Inputs, settings: WorkerSettings, solution_fingerprint: str | None
) -> Provenance:
    return Provenance(
        base_sha256=inputs.key.base_sha256,
        adapter_sha256=inputs.key.adapter_sha256,
        train_sha256=inputs.train.sha256,
        validation_sha256=inputs.validation.sha256,
        gradient_fingerprint=fingerprint_of(inputs.train, inputs, spec, settings),
        solution_fingerprint=solution_fingerprint,
        versions=versions(),
        attention=settings.attention,
        token_budget=settings.token_budget,
        device=settings.device,
        seed=spec.seed,
    )
