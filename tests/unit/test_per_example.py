"""Per-example gradients against one autograd backward for every example."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ascribe.errors import UnsupportedModel
from ascribe.settings import Settings
from ascribe.sources.checkpoints import BlockShape, inspect_checkpoint
from ascribe.sources.rows import Labels, Rows, read_rows
from ascribe.spec import DatasetSpec, FileSource, ModelSpec, ParametersSpec
from tests.support.tiny import LABELS, TARGETS, make_checkpoint, make_rows, write_rows
from worker.data import _BATCH_TOKENS, make_batches, pack
from worker.gradients.per_example import PerExampleGradients
from worker.models import load_model

ADAPTED = ModelSpec(base="base", adapter="adapter", dtype="float64")
BARE = ModelSpec(base="base", dtype="float64")
SELECTIONS = {
    "adapter": (ADAPTED, ParametersSpec(select="adapter")),
    "adapter_and_head": (ADAPTED, ParametersSpec(select="adapter_and_head")),
    "head": (BARE, ParametersSpec(select="modules", modules=("classifier",))),
    "every_linear": (BARE, ParametersSpec(select="modules", modules=("*",))),
}


def _rows(root: Path) -> Rows:
    write_rows(root / "rows.jsonl", make_rows(7))
    dataset = DatasetSpec(source=FileSource(kind="file", path="rows.jsonl"))
    return read_rows(Settings(data_root=root), dataset, "/train", Labels(len(LABELS), LABELS))


@pytest.mark.parametrize("model_type", sorted(TARGETS))
@pytest.mark.parametrize("selection", SELECTIONS)
def test_gradients_equal_autograd(tmp_path: Path, model_type: str, selection: str) -> None:
    model, parameters = SELECTIONS[selection]
    make_checkpoint(tmp_path, model_type)
    rows = _rows(tmp_path)
    checkpoint = inspect_checkpoint(tmp_path, model, parameters)
    loaded = load_model(checkpoint, model, attention="eager", device="cpu")
    batches = make_batches(rows, 0, 7, loaded.tokenizer, max_length=16, token_budget=24, device="cpu")
    gradients = PerExampleGradients(loaded.model, checkpoint.blocks)
    assert len(batches) > 1
    for batch in batches:
        loss_N, grad_NP = gradients(batch)
        for i, position in enumerate(batch.positions):
            (single,) = make_batches(
                rows, position, position + 1, loaded.tokenizer, max_length=16, token_budget=24, device="cpu"
            )
            loss = cross_entropy(loaded.model(**single.inputs).logits, single.labels_M)
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


def test_every_linear_layer_is_found_and_nothing_else(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    checkpoint = inspect_checkpoint(tmp_path, *SELECTIONS["every_linear"])
    model = load_model(checkpoint, BARE, attention="eager", device="cpu").model
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {name.rpartition(".")[0] for name in checkpoint.block_names} == linears
    assert all(block.rank <= block.long_side for block in checkpoint.blocks)


def test_a_layer_that_runs_once_for_the_whole_batch_is_refused(tmp_path: Path) -> None:
    """DeBERTa's projections also run on the relative positions, once for all rows: no row has a gradient of its own."""
    make_checkpoint(tmp_path, "deberta-v2", relative_attention=True, pos_att_type=["c2p"], share_att_key=True)
    rows = _rows(tmp_path)
    checkpoint = inspect_checkpoint(tmp_path, *SELECTIONS["every_linear"])
    loaded = load_model(checkpoint, BARE, attention="eager", device="cpu")
    batch = make_batches(rows, 0, 7, loaded.tokenizer, max_length=16, token_budget=64, device="cpu")[0]
    with pytest.raises(UnsupportedModel) as raised:
        PerExampleGradients(loaded.model, checkpoint.blocks)(batch)
    assert raised.value.errors[0].code == "unsupported_parameter"


def test_batches_keep_the_budget_and_every_row() -> None:
    lengths = [3, 50, 4, 4, 9, 3, 120]
    groups = pack(lengths, 24)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * max(lengths[p] for p in group) <= 24 for group in groups)


def test_of_all_ways_to_cut_the_sorted_rows_batches_are_the_cheapest() -> None:
    def cost(groups: Iterable[Sequence[int]]) -> int:
        return sum(max(group) * len(group) + _BATCH_TOKENS for group in groups)

    generator = random.Random(0)  # noqa: S311 - reproducible, not secret
    for _ in range(30):
        lengths = sorted(generator.randint(1, 60) for _ in range(8))
        cuts = itertools.chain.from_iterable(itertools.combinations(range(1, 8), count) for count in range(8))
        ways = [[lengths[a:b] for a, b in itertools.pairwise((0, *cut, 8))] for cut in cuts]
        allowed = [way for way in ways if all(len(group) == 1 or group[-1] * len(group) <= 120 for group in way)]
        found = [[lengths[p] for p in group] for group in pack(lengths, 120)]
        assert cost(found) == min(map(cost, allowed))
