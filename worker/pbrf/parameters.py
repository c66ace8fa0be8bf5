"""The selected tensors of a model as one vector, in the layout of a gradient row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ascribe.errors import UnsupportedModel
from ascribe.sources.checkpoints import BlockShape
from worker.gradients.per_example import plain_name


class FlatParameters:
    """``start_P`` float64: the values that the model has, block after block, the short side of a matrix first.

    Raises:
        UnsupportedModel: the model has no parameter of a block's name.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[BlockShape]) -> None:
        by_name = {plain_name(name): (name, parameter) for name, parameter in model.named_parameters()}
        missing = [block.name for block in blocks if block.name not in by_name]
        if missing:
            raise UnsupportedModel.at(
                "/parameters/select", "unsupported_parameter", f"the model has no parameter {missing[0]}"
            )
        selected = [by_name[block.name] for block in blocks]
        self._shapes = {name: parameter.shape for name, parameter in selected}
        self.start_P = torch.cat(
            [_short_side_first(parameter.detach().double()).flatten() for _, parameter in selected]
        )

    def named(self, theta_P: Tensor) -> dict[str, Tensor]:
        """Views of ``theta_P`` under the parameters' full names, as ``torch.func.functional_call`` takes them."""
        views: dict[str, Tensor] = {}
        offset = 0
        for name, shape in self._shapes.items():
            piece_P = theta_P[offset : offset + shape.numel()]
            turned = len(shape) == 2 and shape[0] > shape[1]
            views[name] = piece_P.view(shape[1], shape[0]).T if turned else piece_P.view(shape)
            offset += shape.numel()
        return views


def _short_side_first(value: Tensor) -> Tensor:
    return value.T if value.ndim == 2 and value.shape[0] > value.shape[1] else value
