from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from worker.curvature.block import build_block
from worker.damping import damping_unit


def _rows() -> Tensor:
    return torch.randn(60, 40, generator=Generator().manual_seed(0)) * torch.linspace(1, 0.1, 40)


def test_damping_is_resolved_against_the_block() -> None:
    block = build_block("w", "gfim", [_rows()], 2, 20)
    largest = float(torch.linalg.eigvalsh(block.operator.matmul(torch.eye(20, dtype=torch.float64)))[-1])
    assert damping_unit(block, "relative", 0) == pytest.approx(float(_rows().square().mean()))
    assert damping_unit(block, "relative_to_largest", 0) == pytest.approx(largest, rel=1e-3)
    assert damping_unit(block, "absolute", 0) == 1.0


def test_a_zero_block_has_no_damping() -> None:
    block = build_block("w", "empirical_fisher", [torch.zeros(3, 4)], 2, 2)
    with pytest.raises(ValueError, match="zero"):
        damping_unit(block, "absolute", 0)


def test_another_kind_is_refused() -> None:
    block = build_block("w", "empirical_fisher", [torch.ones(3, 4)], 2, 2)
    with pytest.raises(ValueError, match="relative_to_largest or absolute"):
        damping_unit(block, "tikhonov", 0)
