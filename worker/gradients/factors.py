"""Kronecker factors of every selected Linear tensor's Fisher block, by one pass over the rows.

A weight's gradient is ``G_n = sum_t g_nt x_nt^T``. K-FAC takes ``g`` and ``x`` to be independent, and the gradients of
two tokens to be uncorrelated; then (Grosse & Martens 2016, section 3; Eschenhagen et al. 2023, "expand")

    mean_n vec(G_n) vec(G_n)^T  ~  S (x) A,    A = mean over tokens of x x^T,    S = (1/N) sum over tokens of g g^T.

So ``A`` is a mean over tokens and ``S`` a sum over a row's tokens, averaged over rows: exact where a layer sees one
token a row and ``g`` is independent of ``x``. A bias has ``x = 1``: its factor is ``S`` alone.

A token counts where its output gradient is more than rounding. Padding has none, whatever its input, and neither have
the tokens that a layer computes for nothing, as the last layer's queries of all tokens but the first: what ``x`` is
there says nothing about the gradient. Nor has the query of a causal model's first token, which sees itself alone; what
is computed there is a difference of equals, zero or not as the batch has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ascribe.settings import WorkerSettings
from ascribe.sources.checkpoints import BlockShape, Checkpoint
from ascribe.sources.rows import Rows
from worker import memory
from worker.data import Batch, make_batches
from worker.fit import BatchFit
from worker.gradients.cotangents import Cotangent
from worker.gradients.per_example import Call, PerExampleGradients, SelectedLinear
from worker.models import LoadedModel

_NEGLIGIBLE = 1e-5
"""Of the largest output gradient of a token in the same row: float32 rounds to less, and what is less adds nothing."""


@dataclass(frozen=True, slots=True)
class KroneckerFactors:
    """``left (x) right`` approximates the second moment of one tensor's gradients, ``[R, D]`` row by row; float64."""

    left_RR: Tensor
    right_DD: Tensor


class _Sums:
    """``sum x x^T``, ``sum g g^T`` and the number of tokens of one layer, float64."""

    def __init__(self, linear: SelectedLinear) -> None:
        weight = linear.module.weight
        self.linear = linear
        self.tokens = 0
        self._input_II = weight.new_zeros(weight.shape[1], weight.shape[1], dtype=torch.float64)
        self._output_OO = weight.new_zeros(weight.shape[0], weight.shape[0], dtype=torch.float64)

    def add(self, input_NTI: Tensor, output_gradient_NTO: Tensor) -> None:
        size_NT = output_gradient_NTO.abs().amax(dim=2)
        live_NT = size_NT > _NEGLIGIBLE * size_NT.amax(dim=1, keepdim=True)
        output_MO = output_gradient_NTO[live_NT].double()
        self._output_OO.addmm_(output_MO.T, output_MO)
        self.tokens += len(output_MO)
        if self.linear.weight is not None:
            input_MI = input_NTI[live_NT].double()
            self._input_II.addmm_(input_MI.T, input_MI)

    def factors(self, rows: int) -> dict[int, KroneckerFactors]:
        """By the first column of each of the layer's selected tensors."""
        output_OO = _symmetric(self._output_OO) / rows
        found = {}
        if (bias := self.linear.bias) is not None:
            found[bias.columns.start] = KroneckerFactors(output_OO.new_ones(1, 1), output_OO)
        if (weight := self.linear.weight) is not None:
            input_II = _symmetric(self._input_II) / max(self.tokens, 1)
            left, right = (input_II, output_OO) if weight.transposed else (output_OO, input_II)
            found[weight.columns.start] = KroneckerFactors(left, right)
        return found


class FactorSums:
    """Adds up the factors of all ``blocks``, batch by batch.

    ``of`` is ``[OfSampledLabel(seed)]`` for an unbiased estimate of the Fisher matrix's ``S``, or all ``C - 1``
    components of :class:`OfGaussNewton` for the exact one: a backward pass for each.

    Raises:
        UnsupportedModel: as :class:`PerExampleGradients` does.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[BlockShape], of: Sequence[Cotangent], fit: BatchFit | None = None
    ) -> None:
        self._fit = fit or BatchFit()
        self._gradients = [PerExampleGradients(model, blocks, cotangent) for cotangent in of]
        self._sums = {linear.module: _Sums(linear) for linear in self._gradients[0].linears}
        self._rows = 0

    def add(self, batch: Batch, start: int = 0) -> None:
        """One batch; ``start`` is the place in its dataset of the slice that the batch's positions count from."""
        for gradients in self._gradients:
            self._fit.run(batch, partial(_calls, gradients, start=start), self._add)
        self._rows += len(batch.positions)

    def _add(self, _: Batch, calls: Iterator[Call]) -> None:
        for linear, input_NTI, output_gradient_NTO in calls:
            self._sums[linear.module].add(input_NTI, output_gradient_NTO)

    def factors(self) -> list[KroneckerFactors]:
        """In the order of the blocks, after at least one row."""
        by_column: dict[int, KroneckerFactors] = {}
        for sums in self._sums.values():
            by_column |= sums.factors(self._rows)
        return [by_column[column] for column in sorted(by_column)]


def _calls(gradients: PerExampleGradients, batch: Batch, start: int) -> Iterator[Call]:
    return gradients.differentiate(batch, start)[1]


def collect_factors(
    rows: Rows,
    checkpoint: Checkpoint,
    loaded: LoadedModel,
    *,
    max_length: int,
    settings: WorkerSettings,
    on_rows: Callable[[int], None],
    of: Sequence[Cotangent],
) -> list[KroneckerFactors]:
    """The factors of every block of ``checkpoint`` over all ``rows``, in order, on the CPU; see :class:`FactorSums`.

    ``on_rows`` is told the rows of every batch; what it raises ends the pass.
    """
    sums = FactorSums(loaded.model, checkpoint.blocks, of, loaded.fit)
    for start in range(0, len(rows), settings.shard_rows):
        batches = make_batches(
            rows, start, min(start + settings.shard_rows, len(rows)), loaded.tokenizer,
            max_length=max_length, token_budget=settings.token_budget, device=settings.device,
        )  # fmt: skip
        for batch in batches:
            sums.add(batch, start)
            on_rows(len(batch.positions))
        memory.give_back()
    return [KroneckerFactors(found.left_RR.cpu(), found.right_DD.cpu()) for found in sums.factors()]


def _symmetric(matrix: Tensor) -> Tensor:
    """A product of two transposes need not round to a symmetric matrix."""
    return (matrix + matrix.T) / 2
