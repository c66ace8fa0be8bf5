"""The proximal Bregman objective of Bae et al. 2022 (arXiv 2209.05364) for a cross-entropy, and the losses beside it.

    f(theta) = (1/N) sum_i KL(p_i(theta_s) || p_i(theta)) + weight L(row, theta) + (damping/2) ||theta - theta_s||^2

Near ``theta_s`` its Hessian is ``G + damping I`` with the Gauss-Newton Hessian ``G``, and its minimum moves with the
weight as ``-(G + damping I)^-1 grad L``: that is what a damped Gauss-Newton solve predicts, for a model that need not
have been trained to a minimum.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from worker.data import Batch
from worker.gradients.cotangents import OfLoss
from worker.gradients.predictions import predict
from worker.pbrf.parameters import FlatParameters
from worker.ticks import tick


class Objective:
    """``f`` by its gradient, for any train row and weight; in float64, on a copy of ``model`` in eval mode.

    ``blocks`` alone move; ``theta`` has the layout of a gradient row. The batches' positions count from the first row
    of their dataset, and those of ``train`` are all of it. ``start_P`` is ``theta_s``.

    Raises:
        ValueError: the damping is not positive, or a dataset has no rows or not every one of them once.
        UnsupportedModel: the model has no parameter of a block's name.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[BlockShape], train: Sequence[Batch], *, damping: float
    ) -> None:
        if not (math.isfinite(damping) and damping > 0):
            raise ValueError("the damping must be finite and positive: without it the minimum is not unique")
        self.damping = damping
        self.rows = count_rows(train)
        self._model = copy.deepcopy(model).double().eval().requires_grad_(False)
        self._parameters = FlatParameters(self._model, blocks)
        self.start_P = self._parameters.start_P
        self._train = tuple(train)
        with torch.no_grad():
            self._start_probabilities = [self._logits(self.start_P, batch).softmax(1) for batch in self._train]

    def gradient(self, theta_P: Tensor, row: int, weight: float) -> Tensor:
        """``grad f`` at ``theta_P``, ``[P]``: a pass over the train rows; at ``theta_s``, ``weight grad L``.

        The vectors that are pulled back from the logits are written down, ``p - p_s`` and ``p - e_y``, not left to the
        differentiation of a divergence: they are exact zeros where the model is where it was, and not computed there.
        """
        theta_P = theta_P.detach().requires_grad_(True)
        total_P = self.damping * (theta_P.detach() - self.start_P)
        moved = not torch.equal(theta_P, self.start_P)
        for batch, start_NC in zip(self._train, self._start_probabilities, strict=True):
            if not moved and row not in batch.positions:
                continue
            logits_NC = self._logits(theta_P, batch)
            cotangent_NC = (logits_NC.detach().softmax(1) - start_NC) / self.rows
            if row in batch.positions:
                at = batch.positions.index(row)
                residual_NC = OfLoss()(logits_NC.detach(), batch.labels_M, batch.places())
                cotangent_NC[at] += weight * residual_NC[at]
            total_P += torch.autograd.grad(logits_NC, theta_P, cotangent_NC)[0]
        return total_P

    def losses(self, theta_P: Tensor, batches: Sequence[Batch]) -> Tensor:
        """Cross-entropy of every row of another dataset, ``[Q]``, in the order of its rows."""
        loss_Q = theta_P.new_empty(sum(len(batch.positions) for batch in batches))
        with torch.no_grad():
            for batch in batches:
                loss_N = nn.functional.cross_entropy(self._logits(theta_P, batch), batch.labels_M, reduction="none")
                loss_Q[list(batch.positions)] = loss_N
        return loss_Q

    def _logits(self, theta_P: Tensor, batch: Batch) -> Tensor:
        tick()
        named = self._parameters.named(theta_P)
        return predict(self._model, batch, named)


def count_rows(batches: Sequence[Batch]) -> int:
    """How many rows the batches hold. Raises ValueError: none, or positions that are not 0, 1, ... once each."""
    positions = sorted(position for batch in batches for position in batch.positions)
    if not positions or positions != list(range(len(positions))):
        raise ValueError("the batches of a dataset must hold each of its rows once, and at least one")
    return len(positions)
