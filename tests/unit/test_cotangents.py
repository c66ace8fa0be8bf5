"""What the cotangents are, against the loss's own derivatives in float64."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torch.func import jacrev
from torch.nn.functional import cross_entropy

from worker.data import Place
from worker.gradients.cotangents import OfGaussNewton, OfLoss, OfSampledLabel


def _logits(rows: int = 40, classes: int = 4, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _places(rows: Iterable[int]) -> list[Place]:
    return [(row, 0) for row in rows]


@pytest.mark.parametrize("spread", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_components_are_a_square_root_of_the_losses_hessian(classes: int, spread: float) -> None:
    logits_NC = _logits(classes=classes, spread=spread)
    labels_N = torch.zeros(len(logits_NC), dtype=torch.long)
    components = [OfGaussNewton(k)(logits_NC, labels_N, _places(range(len(logits_NC)))) for k in range(classes - 1)]
    root_NCK = torch.stack(components, dim=2)
    for n, logits_C in enumerate(logits_NC):
        hessian_CC = jacrev(jacrev(lambda z: cross_entropy(z, labels_N[0])))(logits_C)
        torch.testing.assert_close(root_NCK[n] @ root_NCK[n].T, hessian_CC, rtol=1e-12, atol=1e-15)


def test_of_loss_is_the_gradient_and_keeps_the_digits_of_a_sure_row() -> None:
    logits_NC = _logits().requires_grad_()
    labels_N = torch.arange(40) % 4
    (expected_NC,) = torch.autograd.grad(cross_entropy(logits_NC, labels_N, reduction="sum"), logits_NC)
    torch.testing.assert_close(OfLoss()(logits_NC.detach(), labels_N, _places(range(40))), expected_NC)
    sure_NC = OfLoss()(torch.tensor([[50.0, 0.0]], dtype=torch.float64), torch.tensor([0]), [(0, 0)])
    assert sure_NC[0, 0] == -sure_NC[0, 1] != 0


def test_sampled_labels_come_from_the_model_and_not_from_the_batch() -> None:
    logits_1C = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    labels_N = torch.zeros(4000, dtype=torch.long)
    drawn_NC = OfSampledLabel(3)(logits_1C.expand(4000, 3), labels_N, _places(range(4000)))
    share_C = (drawn_NC < 0).double().mean(0)
    torch.testing.assert_close(share_C, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), rtol=0, atol=0.025)
    apart_NC = OfSampledLabel(3)(logits_1C.expand(2, 3), labels_N[:2], _places([17, 5]))
    assert torch.equal(apart_NC, drawn_NC[[17, 5]])
    assert not torch.equal(OfSampledLabel(4)(logits_1C.expand(4000, 3), labels_N, _places(range(4000))), drawn_NC)
