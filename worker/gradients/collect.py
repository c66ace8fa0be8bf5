"""The pass that makes gradients of a dataset: the model forward and back over the rows of a shard, batch by batch.

No batch crosses a shard: a shard computed again, or by another worker, has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ascribe.errors import NonFinite, Problem
from ascribe.settings import WorkerSettings
from ascribe.sources.checkpoints import Checkpoint
from ascribe.sources.rows import Rows
from worker import memory
from worker.data import Batch, make_batches
from worker.gradients.cotangents import Cotangent
from worker.gradients.per_example import PerExampleGradients
from worker.models import LoadedModel
from worker.saved import Saved
from worker.shards import Pass, Span, spans

_CHECKED_ROWS = 8


def gradient_pass(
    rows: Rows,
    checkpoint: Checkpoint,
    load: Callable[[], LoadedModel],
    *,
    name: str,
    folder: Path,
    max_length: int,
    settings: WorkerSettings,
    pointer: str,
    on_rows: Callable[[int], None],
    of: Cotangent | None = None,
) -> Pass:
    """Per-example gradients of ``rows``, kept in ``folder``, an entry of the store that the caller holds open.

    They are of the loss, or of whatever else ``of`` says; ``folder`` belongs to one such choice.
    ``load`` is called only when a shard has to be computed.
    ``on_rows`` is told of every batch how many rows it had; what it raises ends the pass.

    Computing a shard raises NonFinite: a row's loss or gradient is not finite; the row is named below ``pointer``.
    """

    @cache
    def prepare() -> tuple[LoadedModel, PerExampleGradients]:
        loaded = load()
        return loaded, PerExampleGradients(loaded.model, checkpoint.blocks, of)

    def compute(span: Span) -> Saved:
        loaded, gradients = prepare()
        loss_N = torch.empty(span.rows)
        grad_NP = torch.empty(span.rows, checkpoint.parameters)
        batches = make_batches(
            rows, span.start, span.stop, loaded.tokenizer,
            max_length=max_length, token_budget=settings.token_budget, device=settings.device,
        )  # fmt: skip

        def keep(part: Batch, made: tuple[Tensor, Tensor]) -> None:
            positions = list(part.positions)
            loss_N[positions], grad_NP[positions] = made[0].float().cpu(), made[1].cpu()
            on_rows(len(positions))

        for batch in batches:
            loaded.fit.run(batch, lambda part: gradients(part, span.start), keep)
        memory.give_back()
        _check_finite(loss_N, grad_NP, [rows.place(row) for row in range(span.start, span.stop)], pointer)
        return Saved({"grad": grad_NP}, {"loss": loss_N.tolist()})  # a float32 comes back from JSON as it was

    return Pass(
        name=name,
        what=f"gradients of the {pointer.strip('/')}",
        folder=folder,
        stem="shard",
        spans=spans(len(rows), settings.shard_rows),
        parameters=checkpoint.parameters,
        compute=compute,
        size=lambda span: span.rows * checkpoint.parameters * torch.float32.itemsize,
    )


def _check_finite(loss_N: Tensor, grad_NP: Tensor, places: Sequence[int], pointer: str) -> None:
    # A sum in float64 is finite if and only if every float32 term is. It takes a copy in float64: of few rows at once.
    sum_N = torch.cat([few_nP.sum(1, dtype=torch.float64) for few_nP in torch.split(grad_NP, _CHECKED_ROWS)])
    finite_N = torch.isfinite(loss_N) & torch.isfinite(sum_N)
    if finite_N.all():
        return
    bad = [places[int(i)] for i in (~finite_N).nonzero().flatten()]
    problems = [
        Problem(f"{pointer}/source/rows/{row}", "non_finite", "loss or gradient is not finite") for row in bad[:20]
    ]
    raise NonFinite(
        f"loss or gradient of {len(bad)} row(s) is not finite, the first is row {bad[0]} (from 0): "
        "drop the rows, or run the model in float32",
        errors=problems,
    )
