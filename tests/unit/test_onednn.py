"""Linear layers through oneDNN against the plain ones."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from worker.gradients import onednn
from worker.gradients.onednn import PROGRAM_CACHES, OneDnnLinear


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


def _multiplied_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each product from here on has."""
    multiply, rows = onednn._multiply, []

    def counting(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        rows.append(x.flatten(0, -2).shape[0])
        return multiply(x, weight_OI, bias_O)

    monkeypatch.setattr(onednn, "_multiply", counting)
    return rows


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        ((slice(None), 0), 5),  # one token of each row, as a classifier's head does
        ((slice(None), slice(None), slice(1, None)), 35),  # all rows, and nothing of the column that is looked at first
    ],
)
def test_backward_multiplies_the_rows_that_are_not_zero(
    monkeypatch: pytest.MonkeyPatch, read: tuple[Any, ...], rows: int
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 64).requires_grad_(False)
    x = torch.randn(5, 7, 96, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x)[read].square().sum(), x)
    with OneDnnLinear():
        loss = layer(x)[read].square().sum()
    multiplied = _multiplied_rows(monkeypatch)
    (gradient,) = torch.autograd.grad(loss, x)
    assert multiplied == [rows]
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_one_vector_and_a_gradient_of_zeros() -> None:
    layer = nn.Linear(96, 64).requires_grad_(False)
    x, zeros = torch.randn(96, requires_grad=True), torch.zeros(64)
    with OneDnnLinear():
        y = layer(x)
    torch.testing.assert_close(torch.autograd.grad(y, x, zeros + 1, retain_graph=True)[0], layer.weight.sum(0))
    assert torch.equal(torch.autograd.grad(y, x, zeros)[0], torch.zeros(96))


def test_weights_are_arranged_once_and_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two layers fits, forward and backward. Products are the same for all that."""
    layers = [nn.Linear(64, 64).requires_grad_(False) for _ in range(2)]
    monkeypatch.setattr(onednn, "_ARRANGED_BYTES", 2 * layers[0].weight.nbytes)
    seen, tight = [], OneDnnLinear()
    x = torch.randn(9, 64, requires_grad=True)
    for layer in layers:
        for mode in (OneDnnLinear(), tight, tight):
            with mode:
                y = layer(x)
            seen.append(torch.cat([y, *torch.autograd.grad(y.square().sum(), x)]).detach())
    assert [len(tight._arranged._kept), tight._arranged._room] == [2, 0]
    for first in (0, 3):
        assert torch.equal(seen[first], seen[first + 1])
        assert torch.equal(seen[first], seen[first + 2])


def test_trained_layers_keep_their_gradients() -> None:
    model = _layers()
    with OneDnnLinear():
        model(torch.randn(4, 96)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_stay_as_they_are(dtype: torch.dtype) -> None:
    weight_OI = nn.Parameter(torch.randn(80, 96, dtype=dtype), requires_grad=False)
    x = torch.randn(4, 96, dtype=dtype)
    with OneDnnLinear():
        fast = linear(x, weight_OI)
    assert fast.dtype == dtype
    assert torch.equal(fast, linear(x, weight_OI))


@pytest.mark.parametrize("name", PROGRAM_CACHES)
def test_the_operators_own_setting_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name, raising=False)
    OneDnnLinear()
    assert os.environ[name] == "32"
    monkeypatch.setenv(name, "5")
    OneDnnLinear()
    assert os.environ[name] == "5"


MANY_SHAPES = """
import torch
from pathlib import Path
from torch import nn
from worker import memory
from worker.gradients.onednn import OneDnnLinear

def own_bytes():
    memory.give_back()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

torch.set_num_threads(1)
layer, mode = nn.Linear(384, 384).requires_grad_(False), OneDnnLinear()
sizes = []
with mode, torch.no_grad():
    for rows in range(100, 300):
        layer(torch.ones(rows, 384))
        if rows in (199, 299):
            sizes.append(own_bytes())
print(sizes[1] - sizes[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_shapes_that_are_over_leave_nothing_behind() -> None:
    """In a process of its own, whose first program it is: a hundred more shapes would take 50 MB."""
    done = subprocess.run([sys.executable, "-c", MANY_SHAPES], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 8 << 20
