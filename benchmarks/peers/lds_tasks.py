"""The small tasks of the LDS comparison."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.detection_data import DATASETS, has_data, noisy_corpus
from benchmarks.peers.retraining import Adapter, Head, Retrained
from examples.demo.corpus import TOPICS, build_corpus

HEAD_ROWS = 700
ADAPTER_ROWS = 330
VALIDATION = 64


def lds_tasks(folder: Path, *, quick: bool) -> Iterator[Retrained]:
    """Each in a folder of its own. The one on SST-2 is left out where its data are not at hand."""
    subsets = 6 if quick else 100
    if has_data():
        sst2 = noisy_corpus(DATASETS[0], 0, train=60 if quick else 600, validation=8 if quick else VALIDATION)
        home = folder / "sst2-head"
        yield Head("SST-2, head of a frozen MiniLM", home, sst2, DATASETS[0].labels, subsets, seeds=1, pooler=False)
    topics = build_corpus(0, limit=100 if quick else HEAD_ROWS)
    home = folder / "topics-two-layers"
    yield Head("topics, two layers on a frozen MiniLM", home, topics, TOPICS, subsets, 2 if quick else 5, pooler=True)
    topics = build_corpus(0, limit=60 if quick else ADAPTER_ROWS)
    home = folder / "topics-adapter"
    yield Adapter("topics, MiniLM + LoRA", home, topics, TOPICS, 4 if quick else 40, 1 if quick else 2)
