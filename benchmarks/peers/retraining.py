"""Small models that are trained in seconds, whole and on halves of their rows: what LDS is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.peers.exchange import TRAIN, VALIDATION, Exchange
from examples.demo.corpus import Corpus, Row
from examples.demo.finetune import BASE, Recipe, copy_base, fine_tune
from examples.quiet import quiet_transformers

TRAINED = "trained"
BATCH = 32


class Retrained(Protocol):
    """A model, its rows, and how it is trained. ``seed`` is of whatever is random in training, never of the rows."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def subsets(self) -> int: ...
    @property
    def seeds(self) -> int: ...
    @property
    def corpus(self) -> Corpus: ...

    def prepare(self) -> Exchange:
        """Train on all rows with seed 0, and write the model and the rows for both sides."""

    def losses(self, rows: Sequence[int], seed: int) -> list[float]:
        """Of every validation row, after training on these train rows alone."""


@dataclass(frozen=True)
class Head:
    """The head of a frozen MiniLM, and with ``pooler`` the layer below it as well: a network of two layers.

    The head alone is trained to its optimum under ``decay`` (convex, nothing random); the two by ``steps`` of Adam on
    all rows at once, from a head that the seed draws.
    """

    name: str
    folder: Path
    corpus: Corpus
    labels: tuple[str, ...]
    subsets: int
    seeds: int
    pooler: bool
    decay: float = 1e-3
    steps: int = 60
    learning_rate: float = 1e-3

    def prepare(self) -> Exchange:
        model = self._base()
        weights = self._train(range(len(self.corpus.train)), seed=0)
        model.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=False)
        model.save_pretrained(self.folder / TRAINED)
        AutoTokenizer.from_pretrained(self.folder / BASE).save_pretrained(self.folder / TRAINED)
        modules = ("bert.pooler.dense", "classifier") if self.pooler else ("classifier",)
        exchange = Exchange(self.folder, TRAINED, None, self.labels, "modules", modules, Recipe.max_length)
        return _written(exchange, self.corpus)

    def losses(self, rows: Sequence[int], seed: int) -> list[float]:
        hidden_QH, label_Q = self._features[1]
        weights = self._train(rows, seed)
        return cross_entropy(_logits(weights, hidden_QH), label_Q, reduction="none").tolist()

    def _train(self, rows: Sequence[int], seed: int) -> dict[str, Tensor]:
        """By their names in the model, in float64 as the features are."""
        (hidden_NH, label_N), _ = self._features
        hidden_NH, label_N = hidden_NH[list(rows)], label_N[list(rows)]
        weights = {name: weight.clone() for name, weight in self._pooler.items()}
        generator = torch.Generator().manual_seed(seed)
        width = hidden_NH.shape[1]
        spread = 0.02 if self.pooler else 0.0  # the optimum does not depend on the start
        weights["classifier.weight"] = spread * torch.randn(
            len(self.labels), width, generator=generator, dtype=torch.float64
        )
        weights["classifier.bias"] = torch.zeros(len(self.labels), dtype=torch.float64)
        trained = [w.requires_grad_() for name, w in weights.items() if self.pooler or name.startswith("classifier")]

        def objective() -> Tensor:
            penalty = sum((w.square().sum() for w in trained), torch.zeros(()))
            return cross_entropy(_logits(weights, hidden_NH), label_N) + self.decay / 2 * penalty

        if self.pooler:
            _descend(torch.optim.Adam(trained, lr=self.learning_rate), objective, self.steps)
        else:
            _optimum(trained, objective)
        return {name: weight.detach() for name, weight in weights.items()}

    @cached_property
    def _features(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """First place of the last layer ``[N, H]`` and labels ``[N]``, of the train and of the validation rows."""
        model = self._base()
        tokenizer = AutoTokenizer.from_pretrained(self.folder / BASE)
        train, validation = (
            (_hidden(model, tokenizer, rows), torch.tensor([self.labels.index(row.label) for row in rows]))
            for rows in (self.corpus.train, self.corpus.validation)
        )
        return train, validation

    @cached_property
    def _pooler(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._base().state_dict()
        return {name: weight.double() for name, weight in state.items() if "pooler" in name}

    def _base(self) -> Any:
        if not (self.folder / BASE).exists():
            copy_base(self.folder / BASE)
        names = dict(enumerate(self.labels))
        with quiet_transformers():
            return AutoModelForSequenceClassification.from_pretrained(
                self.folder / BASE, id2label=names, label2id={name: index for index, name in names.items()}
            ).eval()


@dataclass(frozen=True)
class Adapter:
    """MiniLM with LoRA and a head, fine-tuned as the demo does it; the seed draws the start and the batches."""

    name: str
    folder: Path
    corpus: Corpus
    labels: tuple[str, ...]
    subsets: int
    seeds: int
    epochs: int = 6
    learning_rate: float = 2e-3
    batch_size: int = 16

    def prepare(self) -> Exchange:
        self._train(self.corpus, TRAINED, seed=0)
        exchange = Exchange(self.folder, BASE, TRAINED, self.labels, "adapter_and_head")
        return _written(exchange, self.corpus)

    def losses(self, rows: Sequence[int], seed: int) -> list[float]:
        subset = Corpus(tuple(self.corpus.train[row] for row in rows), self.corpus.validation)
        model = self._train(subset, "retrained", seed)
        tokenizer = AutoTokenizer.from_pretrained(self.folder / BASE)
        encoded = tokenizer([row.text for row in self.corpus.validation], padding=True, return_tensors="pt")
        labels = torch.tensor([self.labels.index(row.label) for row in self.corpus.validation])
        with torch.no_grad():
            return cross_entropy(model(**encoded).logits.double(), labels, reduction="none").tolist()

    def _train(self, corpus: Corpus, name: str, seed: int) -> Any:
        base, adapter = self.folder / BASE, self.folder / name
        if not base.exists():
            copy_base(base)
        recipe = Recipe(
            seed=seed,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            dropout=0.0,
        )
        fine_tune(base, adapter, corpus, self.labels, recipe, Console(quiet=True))
        with quiet_transformers():
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(self.labels))
            return PeftModel.from_pretrained(model, str(adapter)).eval()


def _written(exchange: Exchange, corpus: Corpus) -> Exchange:
    exchange.write_facts()
    for name, rows in ((TRAIN, corpus.train), (VALIDATION, corpus.validation)):
        exchange.write_rows(name, [{"id": row.id, "text": row.text, "label": row.label} for row in rows])
    return exchange


@torch.no_grad()
def _hidden(model: Any, tokenizer: Any, rows: Sequence[Row]) -> Tensor:
    parts = []
    for start in range(0, len(rows), BATCH):
        texts = [row.text for row in rows[start : start + BATCH]]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=Recipe.max_length, return_tensors="pt")
        parts.append(model.bert(**batch).last_hidden_state[:, 0].double())
    return torch.cat(parts)


def _logits(weights: dict[str, Tensor], hidden_NH: Tensor) -> Tensor:
    """As BERT has it: pooler, tanh, head."""
    pooled_NH = torch.tanh(hidden_NH @ weights["bert.pooler.dense.weight"].T + weights["bert.pooler.dense.bias"])
    return pooled_NH @ weights["classifier.weight"].T + weights["classifier.bias"]


def _descend(optimizer: torch.optim.Optimizer, objective: Callable[[], Tensor], steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        objective().backward()  # type: ignore[no-untyped-call]  # torch's has no annotations
        optimizer.step()


def _optimum(trained: list[Tensor], objective: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.LBFGS(trained, max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's has no annotations
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # the same
