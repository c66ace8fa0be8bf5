"""What a projection does to rankings, measured where it is used: on a sample of the job's own rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from ascribe.errors import OutOfMemory
from ascribe.planning.sample import groups, sample_rows
from ascribe.result import ProjectionUse
from ascribe.sources.checkpoints import BlockShape
from ascribe.sources.rows import Rows
from worker.data import make_batches
from worker.fit import BatchFit
from worker.gradients.per_example import PerExampleGradients
from worker.pieces import Pieces
from worker.scores.agreement import median_spearman

LOW = 0.9
"""An agreement below is warned of."""


def measure(pieces: Pieces) -> ProjectionUse | None:
    """Plain products of whole and of projected gradients of a sample of both datasets, by rank. None: no projection.

    Whole gradients of all blocks never exist at once: the products are sums over blocks, and a pass is made for every
    group of them that fits.
    """
    checkpoint, spec, inputs = pieces.inputs.checkpoint, pieces.spec, pieces.inputs
    if spec.parameters.projection is None:
        return None
    counts = sample_rows(checkpoint.whole_parameters, len(inputs.train), len(inputs.validation))
    samples = [
        _sample(rows, count, spec.seed) for rows, count in zip((inputs.train, inputs.validation), counts, strict=True)
    ]
    rank_agreement = None
    # What has no room here may have it in the job's own passes: what is learned of this stays here.
    with suppress(OutOfMemory):
        whole_QN, projected_QN = torch.zeros(2, counts[1], counts[0], dtype=torch.float64)
        for group in groups(checkpoint.blocks, sum(counts)):
            whole_QN += _products([block.whole for block in group], samples, pieces)
            projected_QN += _products(group, samples, pieces)
        rank_agreement = median_spearman(whole_QN, projected_QN)
    return ProjectionUse(
        parameters=checkpoint.parameters,
        of_parameters=checkpoint.whole_parameters,
        train_rows=counts[0],
        validation_rows=counts[1],
        rank_agreement=rank_agreement,
    )


def warning_of(use: ProjectionUse | None) -> tuple[str, ...]:
    if use is None or (use.rank_agreement is not None and use.rank_agreement >= LOW):
        return ()
    if use.rank_agreement is None:
        return ("what the projection does to rankings is not known: too few rows, or whole gradients do not fit",)
    return (
        f"the projection changes rankings: on {use.train_rows} train rows plain products agree with those of whole "
        f"gradients to {use.rank_agreement:.2f}; raise parameters.projection.long_side",
    )


def _sample(rows: Rows, count: int, seed: int) -> Rows:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return rows.without(set(order[count:]))


def _products(blocks: Sequence[BlockShape], samples: Sequence[Rows], pieces: Pieces) -> Tensor:
    """``[q, n]`` over these blocks. Raises OutOfMemory."""
    train_nP, validation_qP = (_gradients(rows, blocks, pieces) for rows in samples)
    return validation_qP @ train_nP.T


def _gradients(rows: Rows, blocks: Sequence[BlockShape], pieces: Pieces) -> Tensor:
    spec, settings, loaded, fit = pieces.spec, pieces.settings, pieces.load(), BatchFit()
    gradients = PerExampleGradients(loaded.model, blocks)
    grad_nP = torch.empty(len(rows), sum(block.size for block in blocks))
    batches = make_batches(
        rows, 0, len(rows), loaded.tokenizer,
        max_length=spec.model.max_length, token_budget=settings.token_budget, device=settings.device,
    )  # fmt: skip
    for batch in batches:
        fit.run(batch, gradients, lambda part, made: grad_nP.__setitem__(list(part.positions), made[1].cpu()))
        pieces.on_rows(0)
    return grad_nP
