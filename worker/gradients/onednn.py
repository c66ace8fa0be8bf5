"""Linear layers through oneDNN while a context is open: on some processors twice the speed in the same precision.

PyTorch multiplies float32 matrices on a CPU with MKL, which takes no 512-bit path on processors of other makers than
its own; oneDNN, compiled into the same PyTorch, generates its code for the processor it finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

PROGRAM_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Variables that say how many compiled programs are kept, by oneDNN and by PyTorch's layer above it."""

_SMALLEST = 64  # a side of a weight: LoRA's own narrow matrices are slower this way
_ARRANGED_BYTES = 256 << 20  # a weight beyond is arranged anew for every product, as all would be without keeping them
_USUAL_ROWS = 1024  # tokens of a batch, for which a weight is arranged; others can use it too


_made: WeakKeyDictionary[nn.Module, OneDnnLinear] = WeakKeyDictionary()


def for_model(model: nn.Module) -> OneDnnLinear:
    """The one of this model, made when it is first asked for: all passes share its copies of the weights."""
    if model not in _made:
        _made[model] = OneDnnLinear()
    return _made[model]


class OneDnnLinear(TorchFunctionMode):
    """``with OneDnnLinear():`` runs the model's frozen float32 layers on the CPU, forward and backward, in oneDNN.

    Everything else runs as it would outside, and so does all of it where PyTorch was built without oneDNN. One object
    serves many batches of a model whose weights stay as they are, and holds copies of them.
    """

    def __init__(self) -> None:
        super().__init__()
        # Every shape of batch is a few programs of its own, 0.5 MB each. oneDNN keeps 1024 of them, and PyTorch's layer
        # above it again 1024: a pass over many rows would grow by hundreds of megabytes. Both read this when they make
        # the first one. A batch needs some ten.
        for name in PROGRAM_CACHES:
            os.environ.setdefault(name, "32")
        self._available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # the same
        self._arranged = _Arranged()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is linear and self._available and not kwargs and _fits(*args[:2]):
            return _Linear.apply(self._arranged, *args)  # type: ignore[no-untyped-call]  # theirs has no annotations
        return func(*args, **(kwargs or {}))


def _fits(x: Tensor, weight_OI: Tensor) -> bool:
    return (
        x.dtype == weight_OI.dtype == torch.float32
        and x.device.type == "cpu"
        and isinstance(weight_OI, nn.Parameter)  # and no passing tensor, which it would not pay to arrange
        and not weight_OI.requires_grad
        and min(weight_OI.shape) >= _SMALLEST
    )


class _Arranged:
    """Weights in the order in which oneDNN reads them. Arranging one takes as long as fifty rows of its product."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Tensor, bool], tuple[int, Tensor]] = {}
        self._room = _ARRANGED_BYTES

    def __call__(self, weight_OI: Tensor, *, turned: bool) -> Tensor:
        """``weight_OI``, or where ``turned`` its transpose, for :func:`_multiply`."""
        key = weight_OI, turned
        version, arranged = self._kept.get(key, (-1, weight_OI))
        if version == weight_OI._version:  # as it was then
            return arranged
        weight = weight_OI.detach().T if turned else weight_OI.detach()
        if version < 0:
            if weight.nbytes > self._room:
                return weight
            self._room -= weight.nbytes
        copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _USUAL_ROWS)
        self._kept[key] = weight_OI._version, copy
        return copy


class _Linear(torch.autograd.Function):
    """``x W^T + b`` for a frozen ``W``: the only gradient is that of ``x``."""

    @staticmethod
    def forward(ctx: Any, arranged: _Arranged, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
        ctx.arranged, ctx.weight_OI = arranged, weight_OI  # a parameter, which is neither an input's nor an output's
        return _multiply(x, arranged(weight_OI, turned=False), bias_O)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        weight_IO = ctx.arranged(ctx.weight_OI, turned=True)
        return None, _multiply_used(gradients[0], weight_IO, ctx.weight_OI.shape[1]), None, None


def _multiply_used(gradient: Tensor, weight_IO: Tensor, inputs: int) -> Tensor:
    """The product, of those rows alone that are not zero where they are few.

    In a classifier's last layer they are: its head reads one token of each row. With six layers, a seventh of the
    backward products goes.
    """
    rows_MO = gradient.reshape(-1, gradient.shape[-1])
    # One column tells nearly always: the whole is looked at only where that pays.
    if 2 * int(rows_MO[:, 0].count_nonzero()) > len(rows_MO):
        return _multiply(gradient, weight_IO, None)
    used = rows_MO.any(1).nonzero().flatten()
    product_MI = rows_MO.new_zeros(len(rows_MO), inputs)
    product_MI[used] = _multiply(rows_MO[used], weight_IO, None)
    return product_MI.view(*gradient.shape[:-1], inputs)


def _multiply(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    # The one entry to oneDNN that takes and gives ordinary dense tensors; torch.compile uses it too.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight_OI, bias_O, "none", [], "")
    return product
