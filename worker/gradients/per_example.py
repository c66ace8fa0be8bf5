"""Per-example gradients of the selected Linear weights, one forward and one backward for a whole batch.

What they are gradients of is the cotangent's choice, see :mod:`worker.gradients.cotangents`.

For a Linear layer ``y = x W^T + b`` with input ``x_bti`` and output gradient ``g_bto`` the gradient of example b is
``sum_t g_bto x_bti`` (weight) and ``sum_t g_bto`` (bias); Goodfellow 2015, arXiv:1510.01799, extended over tokens.
Inputs come from forward hooks, output gradients from one ``autograd.grad`` towards the layers' outputs, so autograd
forms no weight gradient of its own. Padding adds exact zeros: the loss does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ascribe.errors import UnsupportedModel
from ascribe.sources.checkpoints import BlockShape
from worker.data import Batch
from worker.gradients.cotangents import Cotangent, OfLoss
from worker.gradients.onednn import for_model
from worker.gradients.predictions import predict
from worker.gradients.projection import projected, sides_of

_LOGITS_AT_ONCE = 1 << 17  # 1 MiB in float64: what malloc keeps, and most of it the second-level cache


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one tensor's gradient goes in the flat row, and whether it is turned to put the short side first.

    ``short`` and ``long`` project these sides where there is a projection.
    """

    columns: slice
    transposed: bool
    short: Tensor | None = None
    long: Tensor | None = None


@dataclass(frozen=True, slots=True)
class SelectedLinear:
    module: nn.Linear
    weight: Slot | None
    bias: Slot | None


Call = tuple[SelectedLinear, Tensor, Tensor]


class PerExampleGradients:
    """Callable: a batch to ``(loss_N, grad_NP)``, float32, columns in the order of ``blocks``.

    ``start`` is the place in its dataset of the slice that the batch's positions count from.

    Raises:
        UnsupportedModel: a selected tensor does not belong to a Linear layer of the model, or to one that runs once for
            a whole batch rather than for every row of it.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[BlockShape], of: Cotangent | None = None) -> None:
        self._model = model
        self._of = of or OfLoss()
        model.requires_grad_(False)  # an earlier selection's parameters would only lengthen the graph
        self._parameters = sum(block.size for block in blocks)
        self.linears = _select(model, blocks)
        self._fast = for_model(model)

    def __call__(self, batch: Batch, start: int = 0) -> tuple[Tensor, Tensor]:
        loss_N, calls = self.differentiate(batch, start)
        grad_NP = torch.zeros(len(batch.positions), self._parameters, device=loss_N.device)
        for linear, input_NTI, output_gradient_NTO in calls:
            _add(grad_NP, linear, input_NTI, output_gradient_NTO)
        return loss_N, grad_NP

    def differentiate(self, batch: Batch, start: int = 0) -> tuple[Tensor, Iterator[Call]]:
        """``loss_N``, and for every call of a selected layer its inputs and output gradients, float32 by token."""
        with _recorded(self.linears) as calls, self._fast, torch.enable_grad():
            logits_MC = predict(self._model, batch)
            loss_M, cotangent_MC = self._at_logits(logits_MC.detach(), batch, start)
            loss_N = batch.mean_by_row(loss_M).float()
            outputs = [_by_row(output, loss_N) for _, _, output in calls]
            # A layer may run for nothing: what it gave has no part in the loss, and its gradient is zero.
            output_gradients = torch.autograd.grad(logits_MC, outputs, cotangent_MC, materialize_grads=True)
        return loss_N, (
            (linear, _tokens(input_), _tokens(output_gradient))
            for (linear, input_, _), output_gradient in zip(calls, output_gradients, strict=True)
        )

    def _at_logits(self, logits_MC: Tensor, batch: Batch, start: int) -> tuple[Tensor, Tensor]:
        """The predictions' losses, float64, and cotangents, as their rows weigh them, in the logits' precision.

        Both are formed in float64, of a few predictions at a time: those of a vocabulary would take several times the
        logits' own memory, and longer for getting it than for the arithmetic.
        """
        loss_M = logits_MC.new_empty(len(logits_MC), dtype=torch.float64)
        cotangent_MC = torch.empty_like(logits_MC)
        places = batch.places(start)
        few = max(1, _LOGITS_AT_ONCE // logits_MC.shape[1])
        for span in (slice(first, first + few) for first in range(0, len(logits_MC), few)):
            exact_mC, labels_m = logits_MC[span].double(), batch.labels_M[span]
            loss_M[span] = nn.functional.cross_entropy(exact_mC, labels_m, reduction="none")
            found_mC = self._of(exact_mC, labels_m, places[span])
            if batch.targets is not None:
                weight_m = batch.targets.weight_M[span]
                found_mC *= (weight_m.sqrt() if self._of.is_root else weight_m)[:, None]
            cotangent_MC[span] = found_mC
        return loss_M, cotangent_MC


def _select(model: nn.Module, blocks: Sequence[BlockShape]) -> list[SelectedLinear]:
    modules = dict(model.named_modules())
    owners = {plain_name(name): name for name, _ in model.named_parameters()}
    slots: dict[str, dict[str, Slot]] = {}
    offset = 0
    for block in blocks:
        full_name = owners.get(block.name)
        module_name, _, kind = (full_name or "").rpartition(".")
        module = modules.get(module_name)
        if not isinstance(module, nn.Linear):
            raise UnsupportedModel.at(
                "/parameters/select", "unsupported_parameter", f"{block.name} is not a weight of a Linear layer"
            )
        parameter: Tensor = getattr(module, kind)
        transposed = parameter.ndim == 2 and parameter.shape[0] > parameter.shape[1]
        short, long = (side if side is None else side.to(parameter.device) for side in sides_of(block))
        slots.setdefault(module_name, {})[kind] = Slot(slice(offset, offset + block.size), transposed, short, long)
        parameter.requires_grad_(True)  # so that autograd records a path; its own gradient is never formed
        offset += block.size
    selected = []
    for module_name, kinds in slots.items():
        module = modules[module_name]
        assert isinstance(module, nn.Linear)
        selected.append(SelectedLinear(module, kinds.get("weight"), kinds.get("bias")))
    return selected


def plain_name(name: str) -> str:
    """A parameter's name as the adapter file has it: without peft's wrappers."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".modules_to_save.default.", ".").replace(".default.", ".")


@contextmanager
def _recorded(linears: Sequence[SelectedLinear]) -> Iterator[list[Call]]:
    """Collects (layer, input, output) of every call of the selected layers while the context is open."""
    calls: list[Call] = []

    def record(linear: SelectedLinear) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append((linear, inputs[0].detach(), output))

        return linear.module.register_forward_hook(hook)

    handles = [record(linear) for linear in linears]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _by_row(output: Tensor, loss_N: Tensor) -> Tensor:
    if len(output) != len(loss_N):
        raise UnsupportedModel.at(
            "/parameters/select",
            "unsupported_parameter",
            "a selected layer also runs once for all rows of a batch (on relative positions): leave it out",
        )
    return output


def _tokens(value: Tensor) -> Tensor:
    """[N, T, F] in float32; a layer after pooling sees one token."""
    return (value if value.ndim == 3 else value.unsqueeze(1)).float()


def _add(grad_NP: Tensor, linear: SelectedLinear, input_NTI: Tensor, output_gradient_NTO: Tensor) -> None:
    # Added, not assigned: a layer that is called twice has the sum of both.
    if linear.weight is not None:
        left, right = output_gradient_NTO, input_NTI
        if linear.weight.transposed:
            left, right = right, left
        left, right = projected(left, linear.weight.short), projected(right, linear.weight.long)
        grad_NP[:, linear.weight.columns] += torch.bmm(left.transpose(1, 2), right).flatten(1)
    if linear.bias is not None:
        grad_NP[:, linear.bias.columns] += output_gradient_NTO.sum(1)
