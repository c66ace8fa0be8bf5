"""The sample of rows on which a projection is measured: whole gradients of a few, a group of blocks at a time."""

from __future__ import annotations

from collections.abc import Sequence

from ascribe.sources.checkpoints import BlockShape

_TRAIN_ROWS, _VALIDATION_ROWS = 64, 16
_LEAST_ROWS = 8
_WORK_BYTES = 1 << 30  # of whole gradients that are made in all: beyond, fewer rows
_HELD_BYTES = 1 << 28


def sample_rows(whole_parameters: int, train_rows: int, validation_rows: int) -> tuple[int, int]:
    """How many of each."""
    room = max(_LEAST_ROWS, _WORK_BYTES // (4 * whole_parameters))
    return min(train_rows, _TRAIN_ROWS, room), min(validation_rows, _VALIDATION_ROWS, room)


def groups(blocks: Sequence[BlockShape], rows: int) -> list[list[BlockShape]]:
    """Blocks whose whole gradients are held at once, in their order; one that is larger than that by itself."""
    found: list[list[BlockShape]] = []
    for block in blocks:
        if found and held_bytes([*found[-1], block], rows) <= _HELD_BYTES:
            found[-1].append(block)
        else:
            found.append([block])
    return found


def held_bytes(group: Sequence[BlockShape], rows: int) -> int:
    """Of ``rows`` rows in all, and of a batch that may hold as many again."""
    return 2 * 4 * rows * sum(block.whole.size for block in group)
