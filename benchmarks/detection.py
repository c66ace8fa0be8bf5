"""Which ranking finds wrong labels: MiniLM and LoRA on SST-2 and CoLA with a fifth of the labels flipped.

All methods of one model share its cached gradients; jobs run in this process, without a server.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from ascribe.errors import AscribeError
from ascribe.job import Phase
from ascribe.results.columns import Columns
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.child import quiet
from benchmarks.detection_data import DATASETS, Dataset, noisy_corpus
from benchmarks.detection_methods import DEFAULT, LOSS, METHODS, Method
from examples.demo.corpus import Corpus, write
from examples.demo.detection import detect
from examples.demo.finetune import BASE, Recipe, copy_base, fine_tune
from worker.pipeline import Bench, run
from worker.progress import Reporter
from worker.sharing import Alone

AFTER_GRADIENTS = (Phase.BUILDING_CURVATURE, Phase.SOLVING, Phase.SCORING)
SHARES = (0.1, 0.2, 0.4)
CACHE_BYTES = 8 << 30
MEASURES = ("auc", *(f"found@{share:.0%}" for share in SHARES))


@dataclass(frozen=True, slots=True)
class Sizes:
    datasets: tuple[Dataset, ...] = DATASETS
    train: int = 1500
    validation: int = 200
    ranks: tuple[int, ...] = (1, 4, 16)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 3
    max_length: int = 64


FULL = Sizes()
QUICK = Sizes(datasets=DATASETS[:1], train=20, validation=6, ranks=(1,), seeds=(0,), epochs=1, max_length=16)


@dataclass(frozen=True, slots=True)
class Model:
    """One fine-tuned model of the study, and the rows it was made of."""

    dataset: Dataset
    rank: int
    seed: int
    sizes: Sizes

    @property
    def name(self) -> str:
        return f"{self.dataset.folder}-r{self.rank}-s{self.seed}"

    @property
    def corpus(self) -> Corpus:
        return noisy_corpus(self.dataset, self.seed, train=self.sizes.train, validation=self.sizes.validation)

    def prepare(self, data_root: Path) -> Cell:
        """Rows and adapter below ``data_root``, and how well the model learned."""
        corpus = self.corpus
        write(corpus, data_root / self.name)
        recipe = Recipe(
            seed=self.seed,
            epochs=self.sizes.epochs,
            rank=self.rank,
            alpha=2 * self.rank,
            max_length=self.sizes.max_length,
        )
        base, adapter, labels = data_root / BASE, data_root / f"{self.name}-lora", self.dataset.labels
        if not base.exists():
            copy_base(base)
        learned = fine_tune(base, adapter, corpus, labels, recipe, Console(quiet=True))
        first = sum(row.label == labels[0] for row in corpus.validation) / len(corpus.validation)
        return learned | {"majority": max(first, 1 - first)}

    def spec(self, method: Method) -> JobSpec:
        model = {"base": BASE, "adapter": f"{self.name}-lora", "max_length": self.sizes.max_length}
        parts: dict[str, Any] = {
            "model": model,
            "train": {"source": {"kind": "file", "path": f"{self.name}/train.jsonl"}},
            "validation": {"source": {"kind": "file", "path": f"{self.name}/validation.jsonl"}},
            "seed": self.seed,
            **method.spec,
        }
        # The mean score is all the ranking needs.
        parts["output"] = {"per_validation_row": False, **parts.get("output", {})}
        return JobSpec.model_validate(parts)


@dataclass
class Kept:
    """A sink in memory."""

    staged: dict[str, bytes] = field(default_factory=dict)

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        self.staged[name] = b"".join(chunks)

    def spill(self, columns: Columns) -> None:
        """All vectors are staged."""

    def announce(self, gradient_fingerprint: str, rows: int) -> None:
        del gradient_fingerprint, rows

    def vector(self, name: str) -> tuple[float, ...]:
        return struct.unpack(f"<{len(self.staged[name]) // 4}f", self.staged[name])


def study(folder: Path, *, quick: bool = False) -> Iterator[Table]:
    """A table for each dataset and rank, and a summary. Every fine-tuning and every job is a cell.

    A job may find what an earlier line of the table left: the curvature, or a factor. Its seconds are what that leaves.
    """
    sizes = QUICK if quick else FULL
    bench = Bench(WorkerSettings(data_root=folder / "data", cache_dir=folder / "cache", cache_max_bytes=CACHE_BYTES))
    summary = table("Our default against the published settings", "data, rank", *SUMMARY)
    everything: list[Cell] = []
    for dataset in sizes.datasets:
        for rank in sizes.ranks:
            models = [Model(dataset, rank, seed, sizes) for seed in sizes.seeds]
            learned = [_learn(model, bench, folder) for model in models]
            found = {method.name: [_found(model, method, bench, folder) for model in models] for method in METHODS}
            everything += [*learned, *(each for cells in found.values() for each in cells)]
            yield _table(f"{dataset.name}, rank {rank}", learned, found, sizes)
            summary.add_row(f"{dataset.name}, {rank}", *_verdict(found))
    summary.caption = seen_on(everything)
    yield summary


def _learn(model: Model, bench: Bench, folder: Path) -> Cell:
    return cell(folder / f"{model.name}.json", lambda: model.prepare(bench.settings.data_root))


def _found(model: Model, method: Method, bench: Bench, folder: Path) -> Cell:
    return cell(folder / model.name / f"{slug(method.name)}.json", lambda: _ask(model, method, bench))


def _ask(model: Model, method: Method, bench: Bench) -> Cell:
    """One job, and how well its ranking finds the flipped rows; or why there is none."""
    sink, train = Kept(), model.corpus.train
    try:
        manifest = run(model.spec(method), bench, Reporter(quiet), sink, Alone())
    except AscribeError as error:
        return {"failed": str(error)}
    values = sink.vector(method.vector)
    suspicion = {row.id: method.suspicion(value) for row, value in zip(train, values, strict=True)}
    detection = detect(suspicion, frozenset(row.id for row in train if row.flipped))
    return {
        "auc": detection.auc,
        **{f"found@{share:.0%}": detection.found_after(share) for share in SHARES},
        "seconds": sum(manifest.diagnostics.seconds[phase] for phase in AFTER_GRADIENTS),
        "status": manifest.diagnostics.status.value,
        "residual": manifest.diagnostics.worst_relative_residual,
    }


def _table(title: str, learned: Sequence[Cell], found: dict[str, list[Cell]], sizes: Sizes) -> Table:
    accuracy = ", ".join(f"{each['accuracy']:.3f}" for each in learned)
    majority = ", ".join(f"{each['majority']:.3f}" for each in learned)
    result = table(
        f"{title}: accuracy on clean rows {accuracy} (always the larger class: {majority}); N = {sizes.train}, "
        f"Q = {sizes.validation}, {len(learned)} seeds, mean ± standard deviation",
        "method", "ROC-AUC", *(f"found at {share:.0%}" for share in SHARES), "seconds after gradients", "status",
    )  # fmt: skip
    for name, cells in found.items():
        failed = [each["failed"] for each in cells if "failed" in each]
        if failed:
            result.add_row(name, *["-"] * (len(MEASURES) + 1), failed[0])
            continue
        spreads = (_spread([each[measure] for each in cells]) for measure in MEASURES)
        seconds = mean(each["seconds"] for each in cells)
        status = " / ".join(sorted({str(each["status"]) for each in cells}))
        result.add_row(name, *spreads, f"{seconds:.1f}", status)
    return result


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


SUMMARY = ("default", "best published", "which", "at or above", "default - published, by seed", "training loss")


def _verdict(found: dict[str, list[Cell]]) -> tuple[str, ...]:
    """By mean ROC-AUC. The difference is taken seed by seed: both rank the same rows of the same model."""
    auc = {
        name: [each["auc"] for each in cells]
        for name, cells in found.items()
        if not any("failed" in each for each in cells)
    }
    published = [method.name for method in METHODS if method.published and method.name in auc]
    best = max(published, key=lambda name: mean(auc[name]))
    ours, theirs = auc[DEFAULT.name], auc[best]
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    above = "yes" if mean(ours) >= mean(theirs) else "NO"
    return _spread(ours), _spread(theirs), best, above, _spread(differences), _spread(auc[LOSS.name])
