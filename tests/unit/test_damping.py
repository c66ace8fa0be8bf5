from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from worker.curvature.block import build_block
from worker.damping import resolve_damping


def _rows() -> Tensor:
    return torch.randn(60, 40, generator=Generator().manual_seed(0)) * torch.linspace(1, 0.1, 40)


def test_damping_is_resolved_against_the_block() -> None:
    block = build_block("w", "gfim", [_rows()], 2, 20)
    generator = Generator().manual_seed(0)
    largest = float(torch.linalg.eigvalsh(block.operator.matmul(torch.eye(20, dtype=torch.float64)))[-1])
    assert resolve_damping(block, "relative", 0.1, generator) == pytest.approx(0.1 * float(_rows().square().mean()))
    assert resolve_damping(block, "relative_to_largest", 0.01, generator) == pytest.approx(0.01 * largest, rel=1e-3)
    assert resolve_damping(block, "absolute", 5.0, generator) == 5.0


def test_a_zero_block_has_no_damping() -> None:
    block = build_block("w", "empirical_fisher", [torch.zeros(3, 4)], 2, 2)
    with pytest.raises(ValueError, match="zero"):
        resolve_damping(block, "absolute", 1.0, Generator())


def test_another_kind_is_refused() -> None:
    block = build_block("w", "empirical_fisher", [torch.ones(3, 4)], 2, 2)
    with pytest.raises(ValueError, match="relative_to_largest or absolute"):
        resolve_damping(block, "tikhonov", 1.0, Generator())
