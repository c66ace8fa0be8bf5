"""What a projection does to rankings, measured where it is used: on a sample of the job's own rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ascribe.result import ProjectionUse
from ascribe.sources.checkpoints import BlockShape
from ascribe.sources.rows import Rows
from worker.data import make_batches
from worker.gradients.per_example import PerExampleGradients
from worker.models import LoadedModel
from worker.pieces import Pieces
from worker.scores.agreement import median_spearman

LOW = 0.9
"""An agreement below is warned of."""
_TRAIN_ROWS, _VALIDATION_ROWS = 64, 16
_SAMPLE_BYTES = 1 << 30
_LEAST_ROWS = 8


def measure(pieces: Pieces) -> ProjectionUse | None:
    """Plain products of whole and of projected gradients of up to 64 train and 16 validation rows, by rank.

    Fewer rows where whole gradients are so large that these would take more than a gibibyte. None: no projection.
    """
    checkpoint, spec = pieces.inputs.checkpoint, pieces.spec
    if spec.parameters.projection is None:
        return None
    whole = [block.whole for block in checkpoint.blocks]
    room = max(_LEAST_ROWS, _SAMPLE_BYTES // (4 * checkpoint.whole_parameters))
    train = _sample(pieces.inputs.train, min(_TRAIN_ROWS, room), spec.seed)
    validation = _sample(pieces.inputs.validation, min(_VALIDATION_ROWS, room), spec.seed)
    loaded = pieces.load()

    def products(blocks: Sequence[BlockShape]) -> Tensor:
        train_nP, validation_qP = (_gradients(rows, loaded, blocks, pieces) for rows in (train, validation))
        return validation_qP @ train_nP.T

    return ProjectionUse(
        parameters=checkpoint.parameters,
        of_parameters=checkpoint.whole_parameters,
        train_rows=len(train),
        validation_rows=len(validation),
        rank_agreement=median_spearman(products(whole), products(checkpoint.blocks)),
    )


def warning_of(use: ProjectionUse | None) -> tuple[str, ...]:
    if use is None or use.rank_agreement is None or use.rank_agreement >= LOW:
        return ()
    return (
        f"the projection changes rankings: on {use.train_rows} train rows plain products agree with those of whole "
        f"gradients to {use.rank_agreement:.2f}; raise parameters.projection.long_side",
    )


def _sample(rows: Rows, count: int, seed: int) -> Rows:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return rows.without(set(order[count:]))


def _gradients(rows: Rows, loaded: LoadedModel, blocks: Sequence[BlockShape], pieces: Pieces) -> Tensor:
    spec, settings = pieces.spec, pieces.settings
    gradients = PerExampleGradients(loaded.model, blocks)
    grad_nP = torch.empty(len(rows), sum(block.size for block in blocks))
    batches = make_batches(
        rows, 0, len(rows), loaded.tokenizer,
        max_length=spec.model.max_length, token_budget=settings.token_budget, device=settings.device,
    )  # fmt: skip
    for batch in batches:
        loaded.fit.run(batch, gradients, lambda part, made: grad_nP.__setitem__(list(part.positions), made[1].cpu()))
        pieces.on_rows(0)
    return grad_nP
