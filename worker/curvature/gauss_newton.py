"""The Gauss-Newton Hessian ``C = mean_n J_n^T (diag(p_n) - p_n p_n^T) J_n`` of all selected parameters together.

``J_n`` ``[C, P]`` is the Jacobian of a row's logits, ``p_n`` its softmax. For cross-entropy this is the true Fisher
matrix, and no label enters (Martens 2020, arXiv:1412.1193, section 9). A language model's row is the mean of this over
its target tokens, as its loss is. One matrix, in two forms:

- :func:`gauss_newton_rows`: its square root, cached, of a classifier. A product runs at the speed of memory.
- :class:`GaussNewtonProducts`: nothing cached. A product runs the model forward and back over all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from ascribe.sources.checkpoints import BlockShape
from worker.curvature.jacobian import LogitsJacobian, Middle
from worker.curvature.rebatch import Rebatch
from worker.data import Batch
from worker.fit import BatchFit
from worker.gradients.cotangents import Cotangent, OfGaussNewton, OfSampledLabel
from worker.gradients.per_example import PerExampleGradients
from worker.operators import RowsOperator, SampledOperator
from worker.ticks import tick

_TRACE_PASSES = 4
"""A row's trace is then off by some 40 %, and their sum, over hundreds of rows, by a few."""


def gauss_newton_rows(components: Sequence[Sequence[Tensor]], squared_norm_N: Tensor | None = None) -> RowsOperator:
    """The matrix from cached gradients.

    Args:
        components: for each of the ``C - 1`` cotangents ``OfGaussNewton(k)`` the chunks ``[n_i, P]`` of all rows. Every
            gradient is one rank-one part of its row's matrix, so there are ``C - 1`` of them to an example.
        squared_norm_N: what ``squared_norms`` of the same operator gave before.

    Raises:
        ValueError: if there is no component, or the chunks are not of one width.
    """
    if not components:
        raise ValueError("a Gauss-Newton Hessian has at least one component: two classes")
    return RowsOperator(list(chain.from_iterable(components)), squared_norm_N, scale=float(len(components)))


class GaussNewtonProducts(SampledOperator):
    """The matrix from the model: tangents forward, the softmax's Hessian exactly, cotangents back.

    Products are in the model's dtype, summed over batches in float64. An example's index is its place in the given
    batches, one after the other.

    Drawing needs ``tr C_n``: for each of ``C - 1`` cotangents one pass of per-example gradients over all rows, made
    when it is first asked for. So trace and draws are exact, and LiSSA's condition is the same as for cached rows. Of a
    language model they are estimates, from passes with labels that it draws: products with drawn rows stay unbiased.

    Args:
        model: in eval mode; its parameters no longer ask for gradients afterwards.
        batches: all rows as :func:`worker.data.make_batches` packs them, on the model's device.
        blocks: the selected tensors, in the order and orientation of the columns of per-example gradients.
        fit: halves batches for which memory runs out.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        blocks: Sequence[BlockShape],
        fit: BatchFit | None = None,
    ) -> None:
        self._fit = fit or BatchFit()
        self._rows = Rebatch(batches, pad_token=getattr(getattr(model, "config", None), "pad_token_id", None) or 0)
        self._blocks = tuple(blocks)
        (first,) = self._rows.pick([0])
        self._jacobian = LogitsJacobian(model, blocks, trial=first)
        self._classes = self._jacobian.classes(first)
        self._squared_norm_N: Tensor | None = None
        self.size, self.count = self._jacobian.size, self._rows.count

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know: that products are central differences, where they are."""
        return self._jacobian.notes

    def matmul(self, x_PK: Tensor) -> Tensor:
        weight_N = torch.full((self.count,), 1 / self.count, dtype=torch.float64)
        return self._weighted(self._rows.batches, weight_N, x_PK)

    def matmul_sampled(self, x_PK: Tensor, indices: Tensor) -> Tensor:
        times_N = indices.bincount(minlength=self.count).to(torch.float64)
        drawn = times_N.nonzero()[:, 0]
        weight_N = torch.zeros(self.count, dtype=torch.float64)
        weight_N[drawn] = times_N[drawn] * self.trace() / (self.squared_norms()[drawn] * len(indices))
        return self._weighted(self._rows.pick(drawn.tolist()), weight_N, x_PK)

    def squared_norms(self) -> Tensor:
        if self._squared_norm_N is None:
            model, norm_N = self._jacobian.model, torch.zeros(self.count, dtype=torch.float64)
            cotangents, share = self._roots()
            for cotangent in cotangents:
                gradients = PerExampleGradients(model, self._blocks, cotangent)

                def add(part: Batch, norm_n: Tensor) -> None:
                    norm_N[list(part.positions)] += share * norm_n.cpu()

                for batch in self._rows.batches:
                    tick()
                    self._fit.run(batch, partial(_squared_norms, gradients), add)
            model.requires_grad_(False)
            self._squared_norm_N = norm_N
        return self._squared_norm_N

    def _weighted(self, batches: Sequence[Batch], weight_N: Tensor, x_PK: Tensor) -> Tensor:
        """``sum_n weight_n C_n x`` over the rows of ``batches``."""
        y_PK = torch.zeros(x_PK.shape, dtype=torch.float64, device=x_PK.device)
        if x_PK.shape[1] == 0:
            return y_PK.to(x_PK.dtype)

        def add(_: Batch, product_PK: Tensor) -> None:
            y_PK.add_(product_PK)

        for batch in batches:
            tick()
            self._fit.run(batch, lambda part: self._jacobian.sandwich(part, _weighting(part, weight_N), x_PK), add)
        return y_PK.to(x_PK.dtype)

    def _roots(self) -> tuple[Sequence[Cotangent], float]:
        """Cotangents whose gradients' squared norms sum to ``tr C_n``, and the share that each of them has."""
        if self._rows.batches[0].targets is None:
            return [OfGaussNewton(component) for component in range(self._classes - 1)], 1.0
        return [OfSampledLabel(seed) for seed in range(_TRACE_PASSES)], 1 / _TRACE_PASSES


def _squared_norms(gradients: PerExampleGradients, batch: Batch) -> Tensor:
    return gradients(batch)[1].double().square().sum(dim=1)


def _weighting(batch: Batch, weight_N: Tensor) -> Middle:
    """The softmax's Hessian with the weight of each row, and of each target in its row."""
    weight_M = weight_N[list(batch.positions)]
    if batch.targets is not None:
        weight_M = weight_M[batch.targets.row_M.cpu()] * batch.targets.weight_M.cpu()
    return _softmax_hessian(weight_M)


def _softmax_hessian(weight_M: Tensor) -> Middle:
    """``weight_m (diag(p) - p p^T) t`` for the predictions of a batch."""

    def times(logits_MC: Tensor, tangent_KMC: Tensor) -> Tensor:
        p_MC = logits_MC.softmax(dim=1)
        inner_KM1 = (p_MC * tangent_KMC).sum(dim=2, keepdim=True)
        return weight_M.to(p_MC)[:, None] * p_MC * (tangent_KMC - inner_KM1)

    return times
