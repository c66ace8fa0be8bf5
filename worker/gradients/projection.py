"""The random matrices that gradients are projected by.

A matrix-shaped gradient ``G`` ``[R, D]`` becomes ``S G L^T`` with ``S`` ``[r, R]`` and ``L`` ``[d, D]`` of independent
Gaussian entries of variance ``1/r`` and ``1/d``. As ``E S^T S = I`` and ``E L^T L = I``, products of projected
gradients are those of whole ones on average. ``G`` is a sum of outer products over tokens, so its factors are projected
and the whole never exists (LoGra, Choe et al. 2024, arXiv:2405.13954).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from ascribe.sources.checkpoints import BlockShape


def sides_of(block: BlockShape) -> tuple[Tensor | None, Tensor | None]:
    """``S`` and ``L`` of a block, float32 on the CPU; None for a side that stays as it is.

    What they are depends on the seed, the block's name and the sizes alone.
    """
    if block.projected is None:
        return None, None
    whole, seed = block.projected, block.projected.seed
    return (
        _matrix(block.rank, whole.rank, f"{seed}/{block.name}/short"),
        _matrix(block.long_side, whole.long_side, f"{seed}/{block.name}/long"),
    )


def _matrix(rows: int, columns: int, name: str) -> Tensor | None:
    if rows == columns:
        return None
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]))
    return torch.randn(rows, columns, generator=generator) / math.sqrt(rows)


def projected(value_NTF: Tensor, matrix: Tensor | None) -> Tensor:
    return value_NTF if matrix is None else value_NTF @ matrix.T
