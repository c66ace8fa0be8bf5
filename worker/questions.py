"""What the train rows are scored for: the right-hand sides of the solve, and which of them is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from ascribe.result import MEAN, token_vector, validation_vector
from ascribe.spec import OutputSpec
from worker.gradients.cache import Gradients


@dataclass(frozen=True, slots=True)
class Questions:
    """``grad_QP`` float64: validation rows where asked for, then their tokens where asked for, their mean last.

    ``names`` are those of the score vectors, ``rows`` how many of them are validation rows.
    """

    grad_QP: Tensor
    names: tuple[str, ...]
    rows: int


def questions(
    output: OutputSpec, validation: Gradients, by_token: Gradients | None, counts: Sequence[int]
) -> Questions:
    """``by_token``: of every target of the validation rows, row after row; ``counts``: targets of each row."""
    mean_P = torch.stack([shard.sum(0, dtype=torch.float64) for shard in validation.shards]).sum(0) / validation.rows
    if not output.per_validation_row:
        return Questions(mean_P.unsqueeze(0), (MEAN,), 0)
    tokens = [token_vector(row, target) for row, count in enumerate(counts) for target in range(count)]
    names = (*map(validation_vector, range(validation.rows)), *tokens, MEAN)
    grad_QP = torch.empty(len(names), len(mean_P), dtype=torch.float64)
    filled = 0
    for shard in chain(validation.shards, by_token.shards if by_token else ()):
        grad_QP[filled : filled + len(shard)] = shard
        filled += len(shard)
    grad_QP[-1] = mean_P
    return Questions(grad_QP, names, validation.rows)
