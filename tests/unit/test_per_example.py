"""Per-example gradients against one autograd backward for every example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ascribe.sources.checkpoints import BlockShape, inspect_checkpoint
from ascribe.sources.rows import Labels, read_rows
from ascribe.spec import DatasetSpec, FileSource, ModelSpec
from tests.support.tiny import LABELS, TARGETS, make_checkpoint, make_rows, write_rows
from worker.data import make_batches, pack
from worker.gradients.per_example import PerExampleGradients
from worker.models import load_model

MODEL = ModelSpec(base="base", adapter="adapter", dtype="float64")


@pytest.mark.parametrize("model_type", sorted(TARGETS))
@pytest.mark.parametrize("select", ["adapter", "adapter_and_head"])
def test_gradients_equal_autograd(tmp_path: Path, model_type: str, select: str) -> None:
    make_checkpoint(tmp_path, model_type)
    write_rows(tmp_path / "rows.jsonl", make_rows(7))
    checkpoint = inspect_checkpoint(tmp_path, MODEL, select)
    loaded = load_model(checkpoint, MODEL, attention="eager", device="cpu")
    dataset = DatasetSpec(source=FileSource(kind="file", path="rows.jsonl"))
    rows = read_rows(tmp_path, dataset, "/train", Labels(len(LABELS), LABELS), max_rows=10)
    batches = make_batches(rows, 0, 7, loaded.tokenizer, max_length=16, token_budget=24, device="cpu")
    gradients = PerExampleGradients(loaded.model, checkpoint.blocks)
    assert len(batches) > 1
    for batch in batches:
        loss_N, grad_NP = gradients(batch)
        for i, position in enumerate(batch.positions):
            (single,) = make_batches(
                rows, position, position + 1, loaded.tokenizer, max_length=16, token_budget=24, device="cpu"
            )
            loss = cross_entropy(loaded.model(**single.inputs).logits, single.labels_N)
            expected = torch.cat([g.flatten() for g in _autograd(loaded.model, checkpoint.blocks, loss)])
            torch.testing.assert_close(grad_NP[i], expected.float(), rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(loss_N[i], loss.float())
            assert expected.abs().max() > 0


def _autograd(model: nn.Module, blocks: Sequence[BlockShape], loss: Tensor) -> Iterator[Tensor]:
    named = {
        name.removeprefix("base_model.model.").replace("modules_to_save.", "").replace("default.", ""): parameter
        for name, parameter in model.named_parameters()
    }
    gradients = torch.autograd.grad(loss, [named[block.name] for block in blocks])
    for gradient in gradients:
        yield gradient.T if gradient.ndim == 2 and gradient.shape[0] > gradient.shape[1] else gradient


def test_batches_keep_the_budget_and_every_row() -> None:
    lengths = [3, 50, 4, 4, 9, 3, 120]
    groups = pack(lengths, 24)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * max(lengths[p] for p in group) <= 24 for group in groups)
