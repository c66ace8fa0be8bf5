"""Per-example gradients beside a plain forward and backward, and beside one backward per example."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn.functional import cross_entropy

from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject, load
from worker.data import Batch, make_batches
from worker.gradients.per_example import PerExampleGradients


def measure(subject: Subject, sizes: Sizes) -> Iterator[Row]:
    """All three go over every batch in turn, so that whatever else the machine does falls on all alike.

    One backward per example is what the code published with DataInf and HyperINF does: a batch of one row, a backward
    pass, and a copy of every LoRA gradient. Seconds are the processor's: on one thread they are the clock's, less
    what others took of it.
    """
    train = subject.write_rows("train", sizes.rows, sizes.tokens)
    with TemporaryDirectory() as cache:
        inputs, loaded, settings = load(subject, subject.spec(train, train), Path(cache))
    gradients = PerExampleGradients(loaded.model, inputs.checkpoint.blocks)
    batches = make_batches(
        inputs.train, 0, len(inputs.train), loaded.tokenizer,
        max_length=128, token_budget=settings.token_budget, device="cpu",
    )  # fmt: skip
    tokens = sum(int(batch.inputs["attention_mask"].sum()) for batch in batches)
    works: tuple[Callable[[Batch], object], ...] = (
        gradients,
        lambda batch: _plain(loaded.model, batch),
        lambda batch: _one_by_one(loaded.model, batch),
    )
    seconds = [0.0, 0.0, 0.0]
    for work in works:
        work(batches[0])
    for batch in batches:
        for index, work in enumerate(works):
            started = time.process_time()
            work(batch)
            seconds[index] += time.process_time() - started
    ours, plain, one_by_one = seconds
    said = f"{ours:.1f} s, {sizes.rows / ours:.0f} rows/s"
    shape = f"N = {sizes.rows}, {tokens / sizes.rows:.0f} tokens a row, {len(batches)} batches"
    yield Row("gradients / plain forward + backward", plain / ours, "x", said, f"{plain:.1f} s", shape, goal=0.9)
    yield Row("gradients / one backward each", one_by_one / ours, "x", said, f"{one_by_one:.1f} s", shape, goal=3.0)


def _plain(model: torch.nn.Module, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    cross_entropy(model(**batch.inputs).logits, batch.labels_M).backward()  # type: ignore[no-untyped-call]  # no annotations


def _one_by_one(model: torch.nn.Module, batch: Batch) -> None:
    for index in range(len(batch.positions)):
        # Without the padding that the row has in our batch: alone it needs none.
        length = int(batch.inputs["attention_mask"][index].sum())
        inputs = {name: value[index : index + 1, :length] for name, value in batch.inputs.items()}
        _plain(model, Batch((0,), inputs, batch.labels_M[index : index + 1]))
        _ = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
