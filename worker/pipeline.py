"""One attribution job, top to bottom: load, gradients, curvature, damp, solve, scores, write.

Knows neither Celery nor Redis: progress goes to a reporter, vectors to a sink.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ascribe.job import Phase
from ascribe.result import (
    MEAN,
    PLAIN_PRODUCT,
    SELF_INFLUENCE,
    TOP_REMOVED,
    TRAIN_LOSS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    CacheUse,
    Diagnostics,
    Manifest,
    ProjectionUse,
    Provenance,
    Reuse,
    RowInfo,
    StoredVectors,
    at_damping,
    token_rows,
)
from ascribe.results.columns import Columns
from ascribe.settings import WorkerSettings
from ascribe.sources.rows import Labels, Rows
from ascribe.spec import JobSpec
from ascribe.store import Store
from ascribe.store.remote import open_remote
from worker import memory, projected
from worker.blocks import SolvedBlocks, solve_blocks
from worker.curvatures.choose import open_curvatures
from worker.describe import worst_of
from worker.environment import versions
from worker.gradients.cache import Gradients
from worker.inputs import Inputs, fingerprint_of, load_inputs
from worker.models import ModelCache
from worker.passes import SharedPasses
from worker.pieces import Pieces
from worker.plan import Planned, plan_job
from worker.progress import Reporter
from worker.questions import Questions, questions
from worker.scored import Scored, damping_path, role_of_inverse, score_rows
from worker.scores.summary import summarize, token_examples
from worker.sharing import Crew
from worker.ticks import listening
from worker.writing import chunks, write_vectors


class Sink(Protocol):
    """Where vectors go: the ledger's staging area in a worker, a dict in a test."""

    def stage(self, name: str, chunks: Iterable[bytes]) -> None: ...

    def spill(self, columns: Columns) -> StoredVectors | None:
        """Keep the vectors as a file, where they are too large to be staged; None: stage them. Raises StorageFailed."""

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


def run(spec: JobSpec, bench: Bench, reporter: Reporter, sink: Sink, crew: Crew) -> Manifest:
    """Do the job, with what help there is, and stage its vectors; the caller commits the returned manifest.

    Raises:
        AscribeError: with the reason, for whatever the input, the data or the numbers make impossible.
        Cancelled, Draining: from the reporter, at a batch.
    """
    with ExitStack() as held:  # store entries the job reads, until its last vector is staged
        return _run(spec, bench, reporter, sink, crew, held)


def _run(spec: JobSpec, bench: Bench, reporter: Reporter, sink: Sink, crew: Crew, held: ExitStack) -> Manifest:
    memory.reset_peak()
    torch.set_num_threads(bench.settings.threads)
    with reporter.phase(Phase.LOADING):
        inputs = load_inputs(spec, bench.settings)
    planned = plan_job(spec, inputs, bench.settings)
    spec = planned.spec
    disk_bytes, halved = held.enter_context(bench.store.noting()), bench.models.fit(inputs.key).halved
    pieces = _pieces(spec, inputs, bench, held, reporter.advance)
    passes = SharedPasses(pieces, reporter, crew)
    train, validation = passes.both_datasets()
    if spec.gradients == "cached":
        sink.announce(pieces.gradient_fingerprint("train"), train.rows)
    sink.announce(pieces.gradient_fingerprint("validation"), validation.rows)
    with reporter.phase(Phase.CACHING_GRADIENTS):
        projection = projected.measure(pieces)
    asked = questions(spec.output, validation, passes.by_token(), inputs.token_counts)
    solved = solve_blocks(
        spec,
        open_curvatures(spec, inputs.checkpoint.blocks, train, passes, cached_rows=planned.cached_rows),
        train,
        asked.grad_QP,
        reporter,
        store=bench.store,
        gradient_fingerprint=pieces.gradient_fingerprint("train"),
    )
    scored = score_rows(solved, lambda sides: passes.scores(train, sides))
    vectors = _vectors(asked, scored, solved, train)
    train_rows = _row_infos(inputs.train, inputs.labels, bench.settings.preview_characters)
    with reporter.phase(Phase.WRITING, len(vectors) + 2):
        stored = write_vectors(vectors, sink, reporter)
        sink.stage(TRAIN_ROWS, chunks(_packed(train_rows)))
        validation_rows = _row_infos(inputs.validation, inputs.labels, bench.settings.preview_characters)
        sink.stage(VALIDATION_ROWS, chunks(_packed(validation_rows)))
        for place, tokens in enumerate(inputs.tokens):
            infos = [RowInfo(id=str(token), label=None, text=text) for token, text in enumerate(tokens)]
            sink.stage(token_rows(place), chunks(_packed(infos)))
    told = (*bench.models.fit(inputs.key).warnings(halved), *projected.warning_of(projection))
    taken = _Taken(disk_bytes(), projection, told)
    return Manifest(
        train_rows=len(inputs.train),
        validation_rows=len(inputs.validation),
        tokens=inputs.token_counts,
        parameters=inputs.checkpoint.parameters,
        vectors=tuple(vectors),
        stored=stored,
        diagnostics=_diagnostics(planned, solved, scored, train, validation, passes, asked, taken),
        provenance=_provenance(spec, inputs, bench.settings, solved.solution_fingerprint),
        summary=summarize(vectors[MEAN], train_rows),
        token_examples=token_examples(vectors, train_rows, inputs.validation.ids, inputs.tokens),
    )


def _pieces(spec: JobSpec, inputs: Inputs, bench: Bench, held: ExitStack, on_rows: Callable[[int], None]) -> Pieces:
    return Pieces(
        spec,
        inputs,
        bench.settings,
        bench.store,
        load=lambda: bench.models.get(inputs.key, inputs.checkpoint, spec.model),
        held=held,
        on_rows=on_rows,
    )


@contextmanager
def helping(spec: JobSpec, bench: Bench, on_rows: Callable[[int], None]) -> Iterator[Callable[[str], None]]:
    """What does a part of another worker's job: see :meth:`worker.pieces.Pieces.do`, which it is.

    ``on_rows`` is told of every batch, and what it raises ends the part.

    Raises:
        AscribeError: the job's inputs are not here, or not usable.
    """
    torch.set_num_threads(bench.settings.threads)
    with ExitStack() as held, listening(lambda: on_rows(0)):
        yield _pieces(spec, load_inputs(spec, bench.settings), bench, held, on_rows).do


def _vectors(asked: Questions, scored: Scored, solved: SolvedBlocks, train: Gradients) -> dict[str, Tensor]:
    """Named score vectors ``[N]``."""
    vectors: dict[str, Tensor] = {}
    for place, (score_QN, value) in enumerate(zip(scored.values, solved.values, strict=True)):
        # The mean first: it is what most will look at.
        named = [*zip(asked.names, score_QN, strict=True)]
        vectors |= {at_damping(name, place): score_N for name, score_N in (named[-1], *named[:-1])}
        if value.self_influence_N is not None:
            vectors[at_damping(SELF_INFLUENCE, place)] = value.self_influence_N
    if scored.plain_QN is not None and scored.without_top_QN is not None:
        vectors |= {PLAIN_PRODUCT: scored.plain_QN[-1], TOP_REMOVED: scored.without_top_QN[-1]}
    return vectors | {TRAIN_LOSS: train.loss_N}


def _row_infos(rows: Rows, labels: Labels | None, preview: int) -> list[RowInfo]:
    seconds = rows.text_pairs or rows.completions or ("",) * len(rows)
    names = [None] * len(rows) if labels is None else [labels.name(label) for label in rows.labels]
    return [
        RowInfo(id=identifier, label=name, text=" ⏎ ".join(filter(None, (text, second)))[:preview])
        for identifier, text, second, name in zip(rows.ids, rows.texts, seconds, names, strict=True)
    ]


def _packed(rows: list[RowInfo]) -> bytes:
    return zlib.compress("\n".join(row.model_dump_json() for row in rows).encode())


@dataclass(frozen=True, slots=True)
class _Taken:
    """Files in the cache that the job found or left, what its projection left out, and what is to be said of both."""

    disk_bytes: int
    projection: ProjectionUse | None
    warnings: tuple[str, ...]


def _diagnostics(
    planned: Planned,
    solved: SolvedBlocks,
    scored: Scored,
    train: Gradients,
    validation: Gradients,
    passes: SharedPasses,
    asked: Questions,
    taken: _Taken,
) -> Diagnostics:
    pieces, seconds = passes.pieces, passes.reporter.seconds
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
        seconds={**seconds, "total": sum(seconds.values())},
        peak_memory_bytes=memory.peak_bytes(),
        estimated_memory_bytes=planned.expected.peak if pieces.settings.device == "cpu" else None,
        disk_bytes=taken.disk_bytes,
        estimated_disk_bytes=planned.expected.disk,
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
        role_of_inverse=role_of_inverse(planned.spec, scored, asked.rows),
        projection=taken.projection,
        workers=dict(sorted(passes.rows_by.items())),
        warnings=(
            *pieces.inputs.checkpoint.warnings,
            *pieces.inputs.warnings,
            *pieces.warnings(),
            *taken.warnings,
            *solved.warnings,
        ),
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
