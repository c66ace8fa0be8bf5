"""Linear layers through oneDNN while a context is open: on some processors twice the speed in the same precision.

PyTorch multiplies float32 matrices on a CPU with MKL, which takes no 512-bit path on processors of other makers than
its own; oneDNN, compiled into the same PyTorch, generates its code for the processor it finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

_SMALLEST = 64  # a side of a weight: LoRA's own narrow matrices are slower this way


class OneDnnLinear(TorchFunctionMode):
    """``with OneDnnLinear():`` runs the model's frozen float32 layers on the CPU, forward and backward, in oneDNN.

    Everything else runs as it would outside, and so does all of it where PyTorch was built without oneDNN.
    """

    def __init__(self) -> None:
        super().__init__()
        # Every shape of batch is a program of its own to oneDNN, which keeps 1024 of them, hundreds of megabytes. It
        # reads this when it makes the first one.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        self._available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # the same

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is linear and self._available and not kwargs and _fits(args[0], args[1]):
            return _Linear.apply(*args)  # type: ignore[no-untyped-call]  # theirs has no annotations
        return func(*args, **(kwargs or {}))


def _fits(x: Tensor, weight_OI: Tensor) -> bool:
    return (
        x.dtype == weight_OI.dtype == torch.float32
        and x.device.type == "cpu"
        and not weight_OI.requires_grad
        and min(weight_OI.shape) >= _SMALLEST
    )


class _Linear(torch.autograd.Function):
    """``x W^T + b`` for a frozen ``W``: the only gradient is that of ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(weight_OI)
        return _multiply(x, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight_OI,) = ctx.saved_tensors
        return _multiply(gradients[0], weight_OI.T, None), None, None


def _multiply(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    # The one entry to oneDNN that takes and gives ordinary dense tensors; torch.compile uses it too.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight_OI, bias_O, "none", [], "")
    return product
