"""What every kind of curvature answers: its blocks, how one is built, and how it is kept for a later job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from ascribe.sources.checkpoints import BlockShape
from worker.curvature.block import CurvatureBlock
from worker.curvature.gfim import ShardSums
from worker.data import Batch
from worker.gradients.cache import Gradients
from worker.gradients.cotangents import Cotangent
from worker.gradients.factors import KroneckerFactors
from worker.models import LoadedModel
from worker.saved import Saved
from worker.shards import Shards


class Passes(Protocol):
    """Passes over the train rows beyond the gradients of their loss, see :class:`worker.passes.TrainPasses`."""

    @property
    def classes(self) -> int: ...
    @property
    def examples(self) -> int: ...
    def gradients(self, of: Cotangent) -> Gradients: ...
    def sums(self) -> Shards | None: ...
    def take_summed(self, index: int) -> ShardSums | None: ...
    def factors(self, of: Sequence[Cotangent]) -> list[KroneckerFactors]: ...
    def batches(self) -> tuple[LoadedModel, list[Batch]]: ...


@dataclass(frozen=True, slots=True)
class Block:
    """Parameters that are solved for together, and their columns in a gradient."""

    shape: BlockShape
    columns: slice


def tensor_blocks(shapes: Sequence[BlockShape]) -> tuple[Block, ...]:
    """A block a tensor."""
    stops = accumulate(shape.size for shape in shapes)
    return tuple(Block(shape, slice(stop - shape.size, stop)) for shape, stop in zip(shapes, stops, strict=True))


def whole(shapes: Sequence[BlockShape]) -> tuple[Block]:
    """One block of all parameters."""
    size = sum(shape.size for shape in shapes)
    return (Block(BlockShape("all selected parameters", 1, size), slice(0, size)),)


class Curvatures(ABC):
    """Builds the curvature of one block at a time."""

    blocks: tuple[Block, ...]
    key: Mapping[str, Any]
    """All that decides a bit of it, beside the train gradients: what is kept is found under it."""

    @abstractmethod
    def build(self, index: int) -> CurvatureBlock:
        """Raises NonFinite."""

    @abstractmethod
    def save(self, block: CurvatureBlock) -> Saved:
        """What the passes over the rows found out about the block."""

    @abstractmethod
    def load(self, index: int, saved: Saved) -> CurvatureBlock:
        """What :meth:`build` made, to the last bit, from what :meth:`save` left of it."""

    def notes(self) -> tuple[str, ...]:
        """What the caller should know of how it was built."""
        return ()
