"""A net of two Linear layers, one by token and one after pooling: small enough to write its curvature out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from worker.data import Batch
from worker.gradients.cotangents import Cotangent
from worker.gradients.per_example import PerExampleGradients

INPUTS, HIDDEN, CLASSES = 5, 3, 4


@dataclass(frozen=True)
class Output:
    logits: Tensor


class TokenNet(nn.Module):
    """``head(sum over tokens of tanh(body(x)))``; tokens where ``attention_mask`` is 0 are not summed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(INPUTS, HIDDEN, dtype=torch.float64)
        self.head = nn.Linear(HIDDEN, CLASSES, dtype=torch.float64)

    def forward(self, x_NTI: Tensor, attention_mask: Tensor) -> Output:
        return Output(self.head((self.body(x_NTI).tanh() * attention_mask[:, :, None]).sum(1)))


def blocks(model: nn.Module) -> list[BlockShape]:
    return [BlockShape.of(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]


def make_batch(lengths: Sequence[int], *, first: int = 0, padding: float = 0.0) -> Batch:
    """Rows of so many tokens, the same ones for the same place; ``padding`` stands where there is none."""
    x_NTI = torch.full((len(lengths), max(lengths), INPUTS), padding, dtype=torch.float64)
    for n, length in enumerate(lengths):
        generator = Generator().manual_seed(first + n)
        x_NTI[n, :length] = torch.randn(length, INPUTS, dtype=torch.float64, generator=generator)
    mask_NT = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).double()
    positions = tuple(range(first, first + len(lengths)))
    return Batch(positions, {"x_NTI": x_NTI, "attention_mask": mask_NT}, torch.zeros(len(lengths), dtype=torch.long))


def gradients(model: nn.Module, batches: Sequence[Batch], of: Cotangent) -> list[Tensor]:
    """Every block's per-example gradients ``[N, R * D]`` in float64."""
    per_example = PerExampleGradients(model, blocks(model), of)
    grad_NP = torch.cat([per_example(batch)[1] for batch in batches]).double()
    return list(torch.split(grad_NP, [block.size for block in blocks(model)], dim=1))


def second_moment(grad_NP: Tensor) -> Tensor:
    return grad_NP.T @ grad_NP / len(grad_NP)
