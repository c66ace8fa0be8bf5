"""From a damping as users give it to the lambda of a block: a factor times the block's own unit."""

from __future__ import annotations

from worker.curvature.block import CurvatureBlock
from worker.spectrum import top


def damping_unit(block: CurvatureBlock, form: str, seed: int) -> float:
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
            return top(block.operator, seed).value
        case "absolute":
            return 1.0
        case _:
            raise ValueError("damping is relative, relative_to_largest or absolute")
