"""The Jacobian of a model's logits in its selected parameters, by products: a tangent forward, a cotangent back."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ascribe.sources.checkpoints import BlockShape
from worker import memory
from worker.data import Batch
from worker.gradients.per_example import plain_name
from worker.gradients.predictions import predict

Logits = Callable[[Mapping[str, Tensor]], Tensor]
Middle = Callable[[Tensor, Tensor], Tensor]
"""Of logits ``[M, C]`` and tangents ``[K, M, C]``, both float64: cotangents ``[K, M, C]``."""

# Tangents that go through the model at once: 8 take 3 times as long as one, and memory grows with them.
_TANGENTS = 8
_TANGENT_BYTES = 256 << 20  # of their images in the logits
_DIFFERENCES_NOTE = (
    "a layer of this model has no forward-mode derivative: its Gauss-Newton products are central differences of a "
    "float64 copy of the model."
)


class LogitsJacobian:
    """``J`` ``[M * C, P]`` for any batch, with columns in the order and orientation of per-example gradients.

    ``J x`` is forward-mode; attention runs in its mathematical form for it, which has a derivative where the fused
    kernels have none. Where another layer has none, ``J x`` is central differences of a float64 copy of the model, and
    ``form`` and ``notes`` say so.

    Args:
        model: in eval mode; its parameters no longer ask for gradients afterwards.
        blocks: the selected tensors.
        trial: a batch to find out with whether there is a forward mode; one row will do.
    """

    form: Literal["forward_mode", "central_differences"]
    notes: tuple[str, ...]

    def __init__(self, model: nn.Module, blocks: Sequence[BlockShape], trial: Batch) -> None:
        self.model = model.requires_grad_(False)
        self.size = sum(block.size for block in blocks)
        self._parts = _parts(model, blocks)
        self.form, self.notes = "forward_mode", ()
        if not self._has_forward_mode(trial):
            self.model = copy.deepcopy(model).to(torch.float64)
            self.form, self.notes = "central_differences", (_DIFFERENCES_NOTE,)

    def sandwich(self, batch: Batch, middle: Middle, x_PK: Tensor) -> Tensor:
        """``J^T middle(J x)`` for each column, ``[P, K]`` float64; ``middle`` must be linear in the tangents."""
        y_PK = torch.zeros(x_PK.shape, dtype=torch.float64, device=x_PK.device)
        logits = self._logits(batch)
        value = {name: tensor.detach().requires_grad_() for name, tensor in self._values().items()}
        with sdpa_kernel(SDPBackend.MATH):
            with torch.enable_grad():
                logits_MC = logits(value)
            exact_MC = logits_MC.detach().double()
            # A vocabulary of tangents is large: as many at once as fit, beside the model's own.
            step = min(_TANGENTS, max(1, _TANGENT_BYTES // exact_MC.nbytes))
            for start in range(0, x_PK.shape[1], step):
                tangent_KMC = self._push(logits, x_PK[:, start : start + step].to(logits_MC))
                cotangent_KMC = middle(exact_MC, tangent_KMC.double()).to(logits_MC.dtype)
                for column, cotangent_MC in enumerate(cotangent_KMC, start):
                    gradients = torch.autograd.grad(
                        logits_MC, list(value.values()), cotangent_MC, retain_graph=True, materialize_grads=True
                    )
                    for part, gradient in zip(self._parts, gradients, strict=True):
                        y_PK[part.columns, column] = part.flat(gradient).to(y_PK)
        return y_PK

    def classes(self, batch: Batch) -> int:
        with torch.no_grad():
            return int(self._logits(batch)(self._values()).shape[1])

    def _push(self, logits: Logits, x_PK: Tensor) -> Tensor:
        """``J x`` for each column, ``[K, M, C]``."""
        value = self._values()
        tangents = {part.name: part.shaped(x_PK.T) for part in self._parts}
        with torch.no_grad():
            if self.form == "forward_mode":
                pushed_KMC: Tensor = vmap(lambda tangent: jvp(logits, (value,), (tangent,))[1])(tangents)
                return pushed_KMC
            columns = ({name: tensor[k] for name, tensor in tangents.items()} for k in range(x_PK.shape[1]))
            return torch.stack([_difference(logits, value, tangent) for tangent in columns])

    def _logits(self, batch: Batch) -> Logits:
        return lambda value: predict(self.model, batch, value)

    def _values(self) -> dict[str, Tensor]:
        named = dict(self.model.named_parameters())
        return {part.name: named[part.name] for part in self._parts}

    def _has_forward_mode(self, trial: Batch) -> bool:
        """Try it: PyTorch has no other way to tell. A model that cannot run at all fails again without it."""
        x_P1 = next(iter(self._values().values())).new_ones(self.size, 1)
        try:
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
                # Its first forward-mode derivative makes PyTorch 2.13 load a module that uses what it deprecates.
                warnings.filterwarnings(
                    "ignore", message=".torch.jit.script. is deprecated", category=DeprecationWarning
                )
                self._push(self._logits(trial), x_P1)
        except RuntimeError as error:
            if memory.ran_out(error):
                raise
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Part:
    """One selected tensor: its place in a flat vector, and whether it lies there transposed, its short side first."""

    name: str
    columns: slice
    shape: tuple[int, ...]
    transposed: bool

    def shaped(self, x: Tensor) -> Tensor:
        """This part of flat vectors ``[..., P]`` as the model has it, ``[..., *shape]``."""
        stored = tuple(reversed(self.shape)) if self.transposed else self.shape
        part = x[..., self.columns].reshape(*x.shape[:-1], *stored)
        return part.mT if self.transposed else part

    def flat(self, value: Tensor) -> Tensor:
        return (value.mT if self.transposed else value).flatten()


def _parts(model: nn.Module, blocks: Sequence[BlockShape]) -> tuple[_Part, ...]:
    named = {plain_name(name): (name, parameter) for name, parameter in model.named_parameters()}
    parts = []
    for block, stop in zip(blocks, accumulate(block.size for block in blocks), strict=True):
        name, parameter = named[block.name]
        transposed = parameter.ndim == 2 and parameter.shape[0] > parameter.shape[1]
        parts.append(_Part(name, slice(stop - block.size, stop), tuple(parameter.shape), transposed))
    return tuple(parts)


def _difference(logits: Logits, value: Mapping[str, Tensor], tangent: Mapping[str, Tensor]) -> Tensor:
    """``(f(w + h v) - f(w - h v)) / 2h``, with an ``h v`` of ``eps^(1/3) ||w||``: rounding against curvature."""
    length = float(torch.stack([part.norm() for part in tangent.values()]).norm())
    size = 1 + float(torch.stack([part.norm() for part in value.values()]).norm())
    step = torch.finfo(torch.float64).eps ** (1 / 3) * size / (length or 1.0)
    ahead_MC = logits({name: part + step * tangent[name] for name, part in value.items()})
    behind_MC = logits({name: part - step * tangent[name] for name, part in value.items()})
    slope_MC: Tensor = (ahead_MC - behind_MC) / (2 * step)
    return slope_MC
