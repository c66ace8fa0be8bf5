"""From a damping as users give it to the lambda of a block: a factor times the block's own unit."""

from __future__ import annotations

from torch import Generator

from worker.curvature.block import CurvatureBlock
from worker.spectrum import largest_eigenvalue


def damping_unit(block: CurvatureBlock, form: str, generator: Generator) -> float:
    """What a factor of 1 means: the block's mean squared gradient entry, its largest eigenvalue, or 1.

    Raises:
        ValueError: if the block's gradients are all zero, see :attr:`CurvatureBlock.is_zero`; or for another ``form``.
    """
    if block.is_zero:
        raise ValueError("a block whose gradients are all zero has no damping")
    match form:
        case "relative":
            return block.mean_squared_entry
        case "relative_to_largest":
            return largest_eigenvalue(block.operator, generator)
        case "absolute":
            return 1.0
        case _:
            raise ValueError("damping is relative, relative_to_largest or absolute")
