"""The models that the PBRF check is run on: logistic regression and an MLP on digits, MiniLM with LoRA on sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from benchmarks.subject import DEMO, Subject, load
from examples.demo.finetune import ADAPTER, BASE, ROWS, prepare
from worker.data import Batch, make_batches


@dataclass(frozen=True, slots=True)
class Sizes:
    digits: int = 500
    steps: int = 150
    """Of the digits' training."""
    chosen: int = 40
    """Train rows to check: of the digits, and of MiniLM below."""
    sentences: int = 40
    queries: int = 16
    chosen_sentences: int = 8
    dampings: tuple[float, ...] = (0.005, 0.001)
    """Of the MLP, relative to the largest eigenvalue; the others have the first."""


FULL = Sizes()
QUICK = Sizes(digits=20, steps=20, chosen=3, sentences=4, queries=2, chosen_sentences=3, dampings=(0.1,))


@dataclass(frozen=True, slots=True)
class Problem:
    """A trained model and its rows; lambda is ``relative`` times the largest eigenvalue of its Gauss-Newton Hessian."""

    name: str
    model: nn.Module
    blocks: list[BlockShape]
    train: list[Batch]
    validation: list[Batch]
    relative: float
    chosen: int
    """Train rows to check, drawn."""


def problems(sizes: Sizes, folder: Path, *, quick: bool) -> dict[str, Callable[[], Problem]]:
    mlps = {
        name: partial(_digits, name, (64, 16, 10), sizes, relative)
        for name, relative in ((f"MLP {relative:g}", relative) for relative in sizes.dampings)
    }
    return {
        "logistic": partial(_digits, "logistic", (64, 10), sizes, sizes.dampings[0]),
        **mlps,
        "MiniLM": partial(_language, sizes, folder, quick=quick),
    }


class _Classifier(nn.Module):
    """Called as a classifier of transformers is."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [layer for pair in pairwise(widths) for layer in (nn.Tanh(), nn.Linear(*pair))]
        self.net = nn.Sequential(*layers[1:])

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.net(pixels))


def _digits(name: str, widths: Sequence[int], sizes: Sizes, relative: float) -> Problem:
    """scikit-learn's 8 x 8 digits, a tenth of the train labels wrong; short training by Adam on all rows at once."""
    generator, rows = Generator().manual_seed(0), sizes.digits
    data = load_digits()
    order_N = torch.randperm(len(data.target), generator=generator)
    pixel_NF, label_N = torch.tensor(data.data)[order_N] / 16, torch.tensor(data.target)[order_N]
    wrong = torch.randperm(rows, generator=generator)[: rows // 10]
    label_N[wrong] = (label_N[wrong] + torch.randint(1, 10, wrong.shape, generator=generator)) % 10
    model = _Classifier(widths).double()
    for parameter in model.parameters():
        bound = parameter.shape[-1] ** -0.5
        parameter.data = (torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(sizes.steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixel_NF[:rows]).logits, label_N[:rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    train, validation = (
        [Batch(tuple(range(len(part))), {"pixels": pixel_NF[part]}, label_N[part])]
        for part in (torch.arange(rows), torch.arange(rows, rows + 50))
    )
    blocks = [BlockShape.of(parameter_name, tuple(value.shape)) for parameter_name, value in model.named_parameters()]
    return Problem(name, model, blocks, train, validation, relative, sizes.chosen)


def _language(sizes: Sizes, folder: Path, *, quick: bool) -> Problem:
    """The demo's model and adapter, on the first of its own train rows and others after them."""
    few = {"epochs": 1, "limit": 20} if quick else {}
    data_root = prepare(folder / "data" if quick else DEMO, **few, progress=False)
    subject = Subject(data_root, BASE, ADAPTER, f"{ROWS}/train.jsonl")
    spec = subject.spec(subject.sentences, subject.sentences)
    count = sizes.sentences + sizes.queries
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"limit": count})})
    inputs, loaded, settings = load(subject, spec, folder / "cache")
    train, validation = (
        make_batches(
            inputs.train, start, stop, loaded.tokenizer,
            max_length=128, token_budget=settings.token_budget, device="cpu",
        )
        for start, stop in ((0, sizes.sentences), (sizes.sentences, count))
    )  # fmt: skip
    blocks = list(inputs.checkpoint.blocks)
    return Problem("MiniLM", loaded.model, blocks, train, validation, sizes.dampings[0], sizes.chosen_sentences)
