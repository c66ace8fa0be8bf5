"""What is differentiated of a language model, against autograd on every row by itself, and written-out Hessians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tokenizers import processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from ascribe.sources.checkpoints import BlockShape
from ascribe.sources.row_checks import CheckedRow
from ascribe.sources.rows import Rows
from tests.support.tiny import WORDS, causal_lm, lm_tokenizer
from worker.curvature.gauss_newton import GaussNewtonProducts
from worker.data import Batch, Place, encode, make_batches
from worker.gradients import per_example
from worker.gradients.cotangents import Cotangent, OfLoss, OfSampledLabel
from worker.gradients.per_example import PerExampleGradients, plain_name

ROWS = 9


@dataclass(frozen=True)
class Subject:
    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    rows: Rows
    batches: Sequence[Batch]
    names: Sequence[str]
    blocks: Sequence[BlockShape]

    def logits(self, row: int) -> tuple[Tensor, Tensor]:
        """Those that predict the completion's tokens, and the tokens; the row alone, without padding."""
        assert self.rows.completions is not None
        (ids,), (targets,) = encode([self.rows.texts[row]], [self.rows.completions[row]], self.tokenizer, 64)
        logits_TC: Tensor = self.model(input_ids=torch.tensor([ids])).logits[0]
        return logits_TC[targets.start - 1 : targets.stop - 1], torch.tensor(ids)[targets.start : targets.stop]

    def pulled(self, value: Tensor) -> Tensor:
        """``value``'s gradient as a row of ours."""
        named = dict(self.model.named_parameters())
        parts = torch.autograd.grad(value, [named[name] for name in self.names], retain_graph=True)
        return torch.cat([(g.T if g.shape[0] > g.shape[1] else g).flatten() for g in parts])


def _rows() -> Rows:
    generator = torch.Generator().manual_seed(1)

    def text() -> str:
        length = int(torch.randint(1, 6, (1,), generator=generator))
        return " ".join(WORDS[int(pick)] for pick in torch.randint(0, len(WORDS), (length,), generator=generator))

    return Rows.of(CheckedRow(f"r{place}", text() if place else "", text(), None) for place in range(ROWS))


@pytest.fixture(scope="module")
def subject() -> Subject:
    model = causal_lm(rank=2, init_std=0.3).double().eval()
    shapes = {plain_name(name): (name, tuple(p.shape)) for name, p in model.named_parameters() if "lora_" in name}
    names = [shapes[plain][0] for plain in sorted(shapes)]
    blocks = [BlockShape.of(plain, shapes[plain][1]) for plain in sorted(shapes)]
    rows, tokenizer = _rows(), lm_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    batches = make_batches(rows, 0, ROWS, tokenizer, max_length=64, token_budget=40, device="cpu")
    return Subject(model, tokenizer, rows, batches, names, blocks)


def _gradients(subject: Subject, of: Cotangent, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    gradients = PerExampleGradients(subject.model, subject.blocks, of)
    loss_N, grad_NP = torch.zeros(ROWS), torch.zeros(ROWS, sum(block.size for block in subject.blocks))
    for batch in batches:
        loss_N[list(batch.positions)], grad_NP[list(batch.positions)] = gradients(batch)
    return loss_N, grad_NP


def test_only_the_completion_is_asked_for_and_only_what_stands_before_a_prompt_is_put_there(subject: Subject) -> None:
    tokens, targets = encode(["the cat", ""], ["sat on", "dog ran"], subject.tokenizer, 64)
    words = [subject.tokenizer.convert_ids_to_tokens(ids) for ids in tokens]
    assert words == [["<s>", "the", "cat", "sat", "on"], ["<s>", "dog", "ran"]]
    assert targets == [range(3, 5), range(1, 3)]
    _, cut = encode(["the cat", "the cat sat"], ["sat on", "x"], subject.tokenizer, 4)
    assert [len(target) for target in cut] == [1, 0]


def test_the_first_token_of_a_row_is_predicted_from_nothing(subject: Subject) -> None:
    plain = lm_tokenizer()
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    assert encode([""], ["the cat sat"], plain, 64)[1] == [range(1, 3)]


def test_loss_and_gradient_of_a_row_are_those_of_the_mean_over_its_completion(subject: Subject) -> None:
    assert len(subject.batches) > 2
    assert any(len(set(batch.counts)) > 1 for batch in subject.batches)
    loss_N, grad_NP = _gradients(subject, OfLoss(), subject.batches)
    for row in range(ROWS):
        logits_TC, tokens_T = subject.logits(row)
        loss = nn.functional.cross_entropy(logits_TC, tokens_T)
        expected_P = subject.pulled(loss)
        torch.testing.assert_close(loss_N[row], loss.detach().float())
        torch.testing.assert_close(grad_NP[row], expected_P.float(), rtol=1e-5, atol=1e-7)


def test_what_a_row_draws_does_not_depend_on_its_batch(subject: Subject) -> None:
    others = make_batches(subject.rows, 0, ROWS, subject.tokenizer, max_length=64, token_budget=16, device="cpu")
    assert len(others) > len(subject.batches)
    _, one_NP = _gradients(subject, OfSampledLabel(3), subject.batches)
    _, other_NP = _gradients(subject, OfSampledLabel(3), others)
    torch.testing.assert_close(one_NP, other_NP, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("of", [OfLoss(), OfSampledLabel(3)], ids=["loss", "drawn_label"])
def test_a_few_predictions_at_a_time_give_the_bits_of_all_at_once(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, of: Cotangent
) -> None:
    """Slices end within rows here: a row's draws go on where the slice before left off."""
    asked: list[int] = []

    class Counted:
        is_root: ClassVar[bool] = of.is_root
        key = of.key

        def __call__(self, logits_MC: Tensor, labels_M: Tensor, places: Sequence[Place], /) -> Tensor:
            asked.append(len(places))
            return of(logits_MC, labels_M, places)

    whole = _gradients(subject, Counted(), subject.batches)
    assert asked == [len(batch.labels_M) for batch in subject.batches]
    asked.clear()
    monkeypatch.setattr(per_example, "_LOGITS_AT_ONCE", 3 * len(subject.tokenizer))
    few = _gradients(subject, Counted(), subject.batches)
    assert max(asked) == 3
    assert all(torch.equal(one, other) for one, other in zip(whole, few, strict=True))


def _hessian(subject: Subject, row: int) -> Tensor:
    """``(1/T) sum_t J_t^T (diag(p_t) - p_t p_t^T) J_t``, one logit after the other."""
    logits_TC, _ = subject.logits(row)
    parts = []
    for logits_C in logits_TC:
        p_C = logits_C.softmax(0).detach()
        jacobian_CP = torch.stack([subject.pulled(logit) for logit in logits_C])
        parts.append(jacobian_CP.T @ (torch.diag(p_C) - torch.outer(p_C, p_C)) @ jacobian_CP)
    return torch.stack(parts).mean(0)


@pytest.fixture(scope="module", name="hessian_NPP")
def _hessians(subject: Subject) -> Tensor:
    PerExampleGradients(subject.model, subject.blocks)  # asks for the selected parameters' gradients, as autograd needs
    return torch.stack([_hessian(subject, row) for row in range(ROWS)])


def test_gauss_newton_products_are_those_of_the_matrix_by_target_token(subject: Subject, hessian_NPP: Tensor) -> None:
    operator = GaussNewtonProducts(subject.model, subject.batches, subject.blocks)
    x_PK = torch.randn(operator.size, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(operator.matmul(x_PK), hessian_NPP.mean(0) @ x_PK, rtol=1e-5, atol=1e-7)


def test_drawn_rows_are_unbiased_and_their_trace_is_near(subject: Subject, hessian_NPP: Tensor) -> None:
    operator = GaussNewtonProducts(subject.model, subject.batches, subject.blocks)
    share_N = operator.squared_norms() / operator.squared_norms().sum()
    indices = torch.multinomial(share_N, 40_000, replacement=True, generator=torch.Generator().manual_seed(3))
    x_PK = torch.randn(operator.size, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expected_PK = hessian_NPP.mean(0) @ x_PK
    assert float((operator.matmul_sampled(x_PK, indices) - expected_PK).norm() / expected_PK.norm()) < 0.02
    assert float(operator.trace()) == pytest.approx(float(hessian_NPP.mean(0).trace()), rel=0.35)


def test_gradients_of_drawn_tokens_have_the_hessian_as_their_second_moment(
    subject: Subject, hessian_NPP: Tensor
) -> None:
    total_PP = torch.zeros_like(hessian_NPP[0])
    for seed in range(150):
        _, grad_NP = _gradients(subject, OfSampledLabel(seed), subject.batches)
        total_PP += grad_NP.double().T @ grad_NP.double() / ROWS / 150
    mean_PP = hessian_NPP.mean(0)
    assert float((total_PP - mean_PP).norm() / mean_PP.norm()) < 0.15
