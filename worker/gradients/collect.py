"""Gradients of a dataset: from the cache where they are, from the model where they are not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ascribe.settings import WorkerSettings
from ascribe.sources.checkpoints import Checkpoint
from ascribe.sources.rows import Rows
from ascribe.store import Store
from worker import memory
from worker.data import make_batches
from worker.gradients import cache as shards
from worker.gradients.cache import Gradients
from worker.gradients.cotangents import Cotangent
from worker.gradients.per_example import PerExampleGradients
from worker.models import LoadedModel


def collect(
    rows: Rows,
    checkpoint: Checkpoint,
    load: Callable[[], LoadedModel],
    *,
    store: Store,
    folder: Path,
    max_length: int,
    settings: WorkerSettings,
    pointer: str,
    on_rows: Callable[[int, bool], None],
    of: Cotangent | None = None,
) -> Gradients:
    """Per-example gradients of ``rows``, kept in ``folder``, an entry of ``store`` that the caller holds open.

    They are of the loss, or of whatever else ``of`` says; ``folder`` belongs to one such choice.
    ``load`` is called only when a shard has to be computed.
    ``on_rows`` is told (rows, found in the cache) at every batch; what it raises ends the pass.

    Raises:
        NonFinite: a row's loss or gradient is not finite; the row is named below ``pointer``.
        StorageFailed: the cache directory has no room, or cannot be written or read.
    """

    @cache
    def prepare() -> tuple[LoadedModel, PerExampleGradients]:
        loaded = load()
        return loaded, PerExampleGradients(loaded.model, checkpoint.blocks, of)

    def compute(start: int, stop: int) -> tuple[Tensor, Tensor]:
        loaded, gradients = prepare()
        loss_N = torch.empty(stop - start)
        grad_NP = torch.empty(stop - start, checkpoint.parameters)
        batches = make_batches(
            rows, start, stop, loaded.tokenizer,
            max_length=max_length, token_budget=settings.token_budget, device=settings.device,
        )  # fmt: skip
        for batch in batches:
            positions = list(batch.positions)
            batch_loss_N, batch_grad_NP = gradients(batch, start)
            loss_N[positions], grad_NP[positions] = batch_loss_N.float().cpu(), batch_grad_NP.cpu()
            on_rows(len(positions), False)
        memory.give_back()
        return loss_N, grad_NP

    return shards.collect(
        folder,
        len(rows),
        checkpoint.parameters,
        store=store,
        shard_rows=settings.shard_rows,
        pointer=pointer,
        compute=compute,
        on_rows=lambda count: on_rows(count, True),
    )
