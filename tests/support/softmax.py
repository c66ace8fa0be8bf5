"""A softmax classifier small enough for a dense Hessian, and batches of rows for it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Generator, Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from worker.data import Batch

CLASSES, WORDS, FEATURES = 3, 30, 8
HEAD = (BlockShape("outer.weight", CLASSES, FEATURES),)


class Softmax(nn.Module):
    """The mean of a row's word vectors, and two layers with ``between`` between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, FEATURES)
        self.inner = nn.Linear(FEATURES, FEATURES)
        self.outer = nn.Linear(FEATURES, CLASSES)
        self._between = between

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        total_NF = (self.words(input_ids) * attention_mask[:, :, None]).sum(dim=1)
        mean_NF = total_NF / attention_mask.sum(dim=1, keepdim=True)
        return SimpleNamespace(logits=self.outer(self._between(self.inner(mean_NF))))


def softmax_batches(*counts: int) -> list[Batch]:
    """A batch of each of ``counts`` rows, of one to four words."""
    generator = Generator().manual_seed(0)
    batches = []
    for count in counts:
        length_N = torch.randint(1, 5, (count,), generator=generator)
        mask_NT = (torch.arange(int(length_N.max())) < length_N[:, None]).long()
        ids_NT = torch.randint(1, WORDS, mask_NT.shape, generator=generator) * mask_NT
        inputs = {"input_ids": ids_NT, "attention_mask": mask_NT}
        batches.append(Batch(tuple(range(count)), inputs, torch.zeros(count, dtype=torch.long)))
    return batches
