"""Does it help to train on selected rows? The demo's model tuned on them, on as many at random, and on all.

Train rows have a fifth of their labels flipped. Scores are of a model tuned on all of them, for the demo's clean
validation rows; accuracy is measured on rows that had no part in either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean, stdev
from tempfile import TemporaryDirectory

from rich.console import Console

from ascribe.choosing import Quota, choose, row_count
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject
from examples.demo.corpus import TOPICS, Corpus, build_corpus, write
from examples.demo.corpus import Row as Sentence
from examples.demo.finetune import ADAPTER, BASE, ROWS, Recipe, copy_base, fine_tune
from worker.local import run_locally
from worker.pipeline import Bench

FRACTION = 0.5
TEST_SHARE = 0.25
QUOTA: Quota = "proportional"


def measure(_: Subject, sizes: Sizes) -> Iterator[Row]:
    """Accuracy of the three train sets over the seeds. ``sizes`` bounds the rows."""
    found: dict[str, list[float]] = {"selected": [], "random": [], "all": []}
    flipped: dict[str, list[float]] = {name: [] for name in found}
    rows = 0
    for seed in range(sizes.seeds):
        with TemporaryDirectory() as folder:
            corpus, test = split(build_corpus(seed, limit=sizes.rows))
            rows = len(corpus.train)
            sets = _train_sets(Path(folder), corpus, test, seed)
            for name, (train, accuracy) in sets.items():
                found[name].append(accuracy)
                flipped[name].append(sum(row.flipped for row in train) / len(train))
    for name, values in found.items():
        yield Row(
            f"selection: accuracy when tuned on {name}",
            mean(values),
            "",
            f"± {stdev(values):.3f} over {len(values)} seeds: {', '.join(f'{value:.3f}' for value in values)}",
            f"{mean(flipped[name]):.0%} of its labels are flipped",
            f"{rows if name == 'all' else row_count(rows, FRACTION)} of {rows} rows",
        )


def split(corpus: Corpus) -> tuple[Corpus, tuple[Sentence, ...]]:
    """The last quarter of the train rows, under their true labels, to test on; and the rest."""
    count = round(TEST_SHARE * len(corpus.train))
    test = tuple(replace(row, label=row.true_label) for row in corpus.train[-count:])
    return Corpus(corpus.train[:-count], corpus.validation), test


def _train_sets(
    root: Path, corpus: Corpus, test: Sequence[Sentence], seed: int
) -> dict[str, tuple[Sequence[Sentence], float]]:
    """Each set's rows, and the accuracy on ``test`` of the model that was tuned on them."""
    copy_base(root / BASE)
    write(corpus, root / ROWS)

    def tuned(name: str, train: Sequence[Sentence]) -> float:
        rows = Corpus(tuple(train), tuple(test))
        report = fine_tune(root / BASE, root / name, rows, TOPICS, Recipe(seed=seed), Console(quiet=True))
        return report["accuracy"]

    everything = tuned(ADAPTER, corpus.train)
    count = row_count(len(corpus.train), FRACTION)
    best = choose(_scores(root), count, labels=[row.label for row in corpus.train], quota=QUOTA).places
    selected = [corpus.train[place] for place in sorted(best)]
    drawn = Random(seed).sample(corpus.train, count)  # noqa: S311 - reproducible, not secret
    return {
        "selected": (selected, tuned("selected", selected)),
        "random": (drawn, tuned("random", drawn)),
        "all": (corpus.train, everything),
    }


def _scores(root: Path) -> list[float]:
    spec = JobSpec.model_validate(
        {
            "model": {"base": BASE, "adapter": ADAPTER},
            "train": {"source": {"kind": "file", "path": f"{ROWS}/train.jsonl"}},
            "validation": {"source": {"kind": "file", "path": f"{ROWS}/validation.jsonl"}},
            "curvature": {"kind": "gfim"},
            "solver": {"kind": "auto"},
            "output": {"per_validation_row": False},
        }
    )
    with TemporaryDirectory() as cache:
        job = run_locally(spec, Bench(WorkerSettings(data_root=root, cache_dir=Path(cache))))
    scores: list[float] = job.vectors["mean"].tolist()
    return scores
