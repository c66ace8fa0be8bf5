"""What is measured: the demo's fine-tuned model, and rows of 32 tokens and more made of the demo's sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from transformers import AutoTokenizer

from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from examples.demo.finetune import ADAPTER, BASE, ROWS, prepare
from worker.inputs import Inputs, load_inputs
from worker.models import LoadedModel, ModelCache

DEMO = Path(".ascribe/demo/seed-0/data")
FOLDER = "bench"


@dataclass(frozen=True, slots=True)
class Sizes:
    """``rows`` is N, ``queries`` Q; a row has ``tokens`` or more."""

    rows: int = 2000
    queries: int = 16
    tokens: int = 32
    new_queries: int = 10
    repeats: int = 5
    pollers: int = 200
    seconds: float = 15.0
    """How long each server is polled."""
    noop_jobs: int = 3000
    noop_workers: tuple[int, ...] = (1, 2, 4)
    estimates: int = 5
    """Jobs of each kind whose memory is measured, in processes of their own."""
    seeds: int = 3

    def __str__(self) -> str:
        return f"N = {self.rows}, Q = {self.queries}, rows of {self.tokens} tokens and more"


FULL = Sizes()
QUICK = Sizes(
    rows=24,
    queries=3,
    tokens=8,
    new_queries=2,
    repeats=1,
    pollers=20,
    seconds=1.0,
    noop_jobs=40,
    noop_workers=(1,),
    estimates=1,
    seeds=2,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A data root with a base, an adapter, and a JSON lines file of labelled sentences to make long rows of."""

    data_root: Path
    base: str
    adapter: str
    sentences: str

    def spec(self, train: str, validation: str, **changes: Any) -> JobSpec:
        """A job on two of the files that :meth:`write_rows` made; GFIM and Schulz unless ``changes`` say otherwise."""
        parts: dict[str, Any] = {
            "model": {"base": self.base, "adapter": self.adapter},
            "train": {"source": {"kind": "file", "path": train}},
            "validation": {"source": {"kind": "file", "path": validation}},
            "curvature": {"kind": "gfim"},
            "solver": {"kind": "schulz"},
            "output": {"per_validation_row": True},
        }
        return JobSpec.model_validate(parts | changes)

    def write_rows(self, name: str, count: int, tokens: int) -> str:
        """Write ``count`` rows to ``bench/<name>.jsonl``; the path below the data root. Same arguments, same rows."""
        path = self.data_root / FOLDER / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        rows = self.long_rows(name, count, tokens)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return f"{FOLDER}/{path.name}"

    def long_rows(self, name: str, count: int, tokens: int) -> Iterator[dict[str, str]]:
        """Sentences drawn and joined until there are enough tokens, under the label of the first."""
        random = Random(name)  # noqa: S311 - reproducible, not secret
        tokenizer = AutoTokenizer.from_pretrained(self.data_root / self.base, local_files_only=True)
        lines = (self.data_root / self.sentences).read_text(encoding="utf-8").splitlines()
        # Short ones, so that a row ends soon after it is long enough.
        sentences = [row for row in map(json.loads, lines) if len(row["text"].split()) <= 16]
        for index in range(count):
            first = random.choice(sentences)
            text = first["text"]
            while len(tokenizer(text)["input_ids"]) < tokens:
                text += " " + random.choice(sentences)["text"]
            yield {"id": f"{name}-{index}", "text": text, "label": first["label"]}


def demo_subject(*, progress: bool = True) -> Subject:
    """The demo's data root, fine-tuned here and now where that has not been done; ``progress`` says so and shows it."""
    return Subject(prepare(DEMO, progress=progress), BASE, ADAPTER, f"{ROWS}/train.jsonl")


def load(subject: Subject, spec: JobSpec, cache_dir: Path) -> tuple[Inputs, LoadedModel, WorkerSettings]:
    """Checked rows and the warm model, as a worker has them before the first batch."""
    settings = WorkerSettings(data_root=subject.data_root, cache_dir=cache_dir)
    inputs = load_inputs(spec, settings)
    return inputs, ModelCache().get(inputs.key, inputs.checkpoint, spec.model), settings
