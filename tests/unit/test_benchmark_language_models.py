"""The benchmark of a language model's gradients on a tiny one: what is compared does the same work."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ascribe.sources.checkpoints import BlockShape
from ascribe.sources.row_checks import CheckedRow
from ascribe.sources.rows import Rows
from benchmarks import language_models
from benchmarks.language_model import BASE, prepare
from tests.support.tiny import causal_lm, lm_tokenizer, make_causal_lm
from worker.data import make_batches
from worker.gradients.per_example import PerExampleGradients, plain_name


def test_a_trainers_gradient_is_that_of_the_targets_alone_and_the_rows_mean_by_tokens() -> None:
    model, tokenizer = causal_lm(rank=2, init_std=0.3).double().eval(), lm_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    pairs = [("the cat", "sat on the mat"), ("a dog ran to", "the cat"), ("the", "dog")]
    rows = Rows.of([CheckedRow(None, prompt, said, None) for prompt, said in pairs])
    (batch,) = make_batches(rows, 0, 3, tokenizer, max_length=64, token_budget=64, device="cpu")
    named = {plain_name(name): parameter for name, parameter in model.named_parameters() if "lora_" in name}
    blocks = [BlockShape.of(name, tuple(parameter.shape)) for name, parameter in sorted(named.items())]
    _, grad_NP = PerExampleGradients(model, blocks)(batch)

    def formed() -> Tensor:
        parts = []
        for block in blocks:
            gradient = named[block.name].grad
            assert gradient is not None
            parts.append((gradient.T if gradient.shape[0] > gradient.shape[1] else gradient).flatten())
        return torch.cat(parts).float()

    count_N = torch.tensor(batch.counts, dtype=torch.float32)
    assert len(set(batch.counts)) > 1
    for work in (language_models._trainer, language_models._targets_only):
        work(model, batch)
        torch.testing.assert_close(formed(), count_N @ grad_NP / count_N.sum(), rtol=1e-5, atol=1e-7)
    language_models._one_by_one(model, batch)
    torch.testing.assert_close(formed(), grad_NP[-1], rtol=1e-5, atol=1e-7)


def test_it_runs_on_a_tiny_model(tmp_path: Path) -> None:
    make_causal_lm(tmp_path)
    (tmp_path / "base").rename(tmp_path / BASE)
    rows = list(language_models.measure(prepare(tmp_path), 3, 4, "float32"))
    assert [row.goal for row in rows] == [0.9, None, None]
    assert all(row.value > 0 and "N = 3" in row.sizes for row in rows)
