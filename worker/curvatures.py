"""From a spec to the curvature of every block: which blocks there are, and what building one needs.

Most curvatures have a block a tensor and need no more than the cached train gradients. The Gauss-Newton Hessian is one
block over all parameters; it, and the Kronecker factors, ask for further passes over the train rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import JobSpec
from worker.curvature.block import CurvatureBlock, CurvatureKind, build_block, load_block
from worker.gradients.cache import Gradients
from worker.saved import Saved


@dataclass(frozen=True, slots=True)
class Block:
    """Parameters that are solved for together, and their columns in a gradient."""

    shape: BlockShape
    columns: slice


def tensor_blocks(shapes: Sequence[BlockShape]) -> tuple[Block, ...]:
    """A block a tensor."""
    stops = accumulate(shape.size for shape in shapes)
    return tuple(Block(shape, slice(stop - shape.size, stop)) for shape, stop in zip(shapes, stops, strict=True))


class Curvatures(ABC):
    """Builds the curvature of one block at a time."""

    blocks: tuple[Block, ...]
    key: Mapping[str, Any]
    """All that decides a bit of it, beside the train gradients: what is kept is found under it."""

    @abstractmethod
    def build(self, index: int) -> CurvatureBlock:
        """Raises NonFinite."""

    @abstractmethod
    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        """What :meth:`build` made, to the last bit, from what ``save_block`` left of it."""

    def notes(self) -> tuple[str, ...]:
        """What the caller should know of how it was built."""
        return ()


class FromGradients(Curvatures):
    """The curvatures that are sums over the cached train gradients."""

    def __init__(self, kind: CurvatureKind, shapes: Sequence[BlockShape], train: Gradients) -> None:
        self.blocks = tensor_blocks(shapes)
        self.key = {"kind": kind}
        self._kind, self._train = kind, train

    def build(self, index: int) -> CurvatureBlock:
        shape, columns = self.blocks[index].shape, self.blocks[index].columns
        return build_block(shape.name, self._kind, self._train.block(columns), shape.rank, shape.long_side)

    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        shape, columns = self.blocks[index].shape, self.blocks[index].columns
        return load_block(shape.name, self._kind, self._train.block(columns), shape.rank, shape.long_side, saved)


def open_curvatures(spec: JobSpec, shapes: Sequence[BlockShape], train: Gradients) -> Curvatures:
    """The curvatures that ``spec`` asks for."""
    match spec.curvature.kind:
        case "gfim" | "gfim_unnormalized" | "empirical_fisher" | "none" as kind:
            return FromGradients(kind, shapes, train)
        case _:
            raise AssertionError(spec.curvature.kind)
