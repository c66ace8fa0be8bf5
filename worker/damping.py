"""From a damping as users give it to the one lambda of a block."""

from __future__ import annotations

from torch import Generator

from worker.curvature.block import CurvatureBlock
from worker.spectrum import largest_eigenvalue


def resolve_damping(block: CurvatureBlock, kind: str, value: float, generator: Generator) -> float:
    """A multiple of the block's mean squared gradient entry or of its largest eigenvalue, or ``value`` as it is.

    Raises:
        ValueError: if the block's gradients are all zero, see :attr:`CurvatureBlock.is_zero`; or for another ``kind``.
    """
    if block.is_zero:
        raise ValueError("a block whose gradients are all zero has no damping")
    match kind:
        case "relative":
            return value * block.mean_squared_entry
        case "relative_to_largest":
            return value * largest_eigenvalue(block.operator, generator)
        case "absolute":
            return value
        case _:
            raise ValueError("damping is relative, relative_to_largest or absolute")
