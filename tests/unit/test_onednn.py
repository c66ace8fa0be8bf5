"""Linear layers through oneDNN against the plain ones."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from worker.gradients.onednn import OneDnnLinear


def _layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 192), nn.GELU(), nn.Linear(192, 64, bias=False), nn.Linear(64, 3))


def _pass(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, list[str]]:
    x = x.clone().requires_grad_(True)
    y = model(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    nodes, names = [y.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is not None:
            names.append(node.name())
            nodes += [following for following, _ in node.next_functions]
    return y.detach(), gradient, names


def test_frozen_layers_give_what_plain_ones_give() -> None:
    model = _layers().requires_grad_(False)
    x = torch.randn(5, 7, 96).transpose(0, 1)  # not contiguous
    plain, plain_gradient, _ = _pass(model, x)
    with OneDnnLinear():
        fast, fast_gradient, names = _pass(model, x)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast_gradient, plain_gradient, rtol=1e-5, atol=1e-5)
    assert names.count("_LinearBackward") == 2, "the two wide layers, not the narrow one"
    assert "_LinearBackward" not in _pass(model, x)[2], "the context is closed"


def test_trained_layers_keep_their_gradients() -> None:
    model = _layers()
    with OneDnnLinear():
        model(torch.randn(4, 96)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_stay_as_they_are(dtype: torch.dtype) -> None:
    weight_OI, x = torch.randn(80, 96, dtype=dtype), torch.randn(4, 96, dtype=dtype)
    with OneDnnLinear():
        fast = linear(x, weight_OI)
    assert fast.dtype == dtype
    assert torch.equal(fast, linear(x, weight_OI))


def test_onednn_keeps_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set by the first use and never against the operator's own setting."""
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    OneDnnLinear()
    assert os.environ[name] == "64"
    monkeypatch.setenv(name, "5")
    OneDnnLinear()
    assert os.environ[name] == "5"
