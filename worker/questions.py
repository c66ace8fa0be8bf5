"""What the train rows are scored for: the right-hand sides of the solve, and which of them is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    output: OutputSpec, validation: Gradients, by_target: Sequence[Gradients], counts: Sequence[int]
) -> Questions:
    """``by_target``: of the validation rows, the part of every target's loss; ``counts``: targets of each row."""
    mean_P = torch.stack([shard.sum(0, dtype=torch.float64) for shard in validation.shards]).sum(0) / validation.rows
    if not output.per_validation_row:
        return Questions(mean_P.unsqueeze(0), (MEAN,), 0)
    places = [(row, target) for row, count in enumerate(counts) for target in range(count)]
    parts = [torch.cat([*gradients.shards]).double() for gradients in by_target]
    grad_QP = torch.stack([*torch.cat([*validation.shards]).double(), *(parts[t][row] for row, t in places), mean_P])
    names = (*map(validation_vector, range(validation.rows)), *(token_vector(row, t) for row, t in places), MEAN)
    return Questions(grad_QP, names, validation.rows)
