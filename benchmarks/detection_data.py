"""Rows of SST-2 and CoLA with a known share of wrong labels, from the folder that ASCRIBE_BENCH_DATA names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from examples.demo.corpus import Corpus, Row, normalise

DATA_VARIABLE = "ASCRIBE_BENCH_DATA"
FLIP_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Dataset:
    """``folder`` has train.tsv and dev.tsv; a line has its text and its label, 0 or 1, in these columns."""

    name: str
    folder: str
    text_column: int
    label_column: int
    labels: tuple[str, str]


DATASETS = (
    Dataset("SST-2", "sst2", 0, 1, ("negative", "positive")),
    Dataset("CoLA", "cola", 3, 1, ("unacceptable", "acceptable")),
)


def data_folder() -> Path:
    """The folder of the benchmark data. Exits with a word on what to set where there is none."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        raise SystemExit(f"Set {DATA_VARIABLE} to the folder that has sst2/ and cola/ with train.tsv and dev.tsv.")
    return Path(folder)


def has_data() -> bool:
    return bool(os.environ.get(DATA_VARIABLE))


def noisy_corpus(dataset: Dataset, seed: int, *, train: int, validation: int) -> Corpus:
    """``train`` rows of train.tsv, a fifth of them with the other label, and ``validation`` clean rows of dev.tsv.

    The seed draws rows and flips alike; no text is there twice.
    """
    random = Random(f"{dataset.folder} {seed}")  # noqa: S311 - reproducible, not secret
    drawn: set[str] = set()
    rows = _draw(dataset, "train", train, random, drawn)
    flipped = set(random.sample(range(train), round(FLIP_SHARE * train)))
    return Corpus(
        train=tuple(_flip(row, dataset) if index in flipped else row for index, row in enumerate(rows)),
        validation=tuple(_draw(dataset, "dev", validation, random, drawn)),
    )


def _draw(dataset: Dataset, part: str, count: int, random: Random, drawn: set[str]) -> list[Row]:
    pairs = list(_read(dataset, part))
    random.shuffle(pairs)
    rows: list[Row] = []
    for text, label in pairs:
        if normalise(text) not in drawn and len(rows) < count:
            drawn.add(normalise(text))
            rows.append(Row(f"{part}{len(rows):04d}", text, label, label))
    if len(rows) < count:
        raise SystemExit(f"{dataset.folder}/{part}.tsv has {len(rows)} distinct rows; the benchmark draws {count}")
    return rows


def _read(dataset: Dataset, part: str) -> Iterator[tuple[str, str]]:
    for line in (data_folder() / dataset.folder / f"{part}.tsv").read_text(encoding="utf-8").splitlines():
        columns = line.split("\t")
        yield columns[dataset.text_column], dataset.labels[int(columns[dataset.label_column])]


def _flip(row: Row, dataset: Dataset) -> Row:
    (other,) = set(dataset.labels) - {row.true_label}
    return replace(row, label=other)
