"""Rankings of score vectors, and the two ends of one as they are kept in the ledger beside a file of vectors."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping
from typing import Literal, get_args

RankedOrder = Literal["proponents", "opponents", "absolute"]

KEPT_ROWS = 1000
"""Of each order: the first pages of a ranking, and most of what anybody asks for by ``top_k``."""


def rank(scores: array[float], order: RankedOrder) -> array[int]:
    """Indices of ``scores`` in this order; equal scores stay in row order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pa.Array.from_buffers(pa.float32(), len(scores), [None, pa.py_buffer(scores)])
    if order == "absolute":
        column = pc.abs(column)
    ranked = pc.array_sort_indices(column, order="ascending" if order == "opponents" else "descending")
    data = ranked.cast(pa.uint32()).buffers()[1]
    assert data is not None
    indices = array("I")
    indices.frombytes(data)
    return indices[: len(scores)]


def pack_top(scores: array[float]) -> bytes:
    """The first rows of every order: of each order their indices, then their scores."""
    rows = min(len(scores), KEPT_ROWS)
    packed = b""
    for order in get_args(RankedOrder):
        indices = rank(scores, order)[:rows]
        packed += struct.pack(f"<{rows}I{rows}f", *indices, *(scores[index] for index in indices))
    return packed


def unpack_top(packed: bytes, order: RankedOrder) -> Mapping[int, float]:
    """Scores by index, from the start of this order."""
    orders = get_args(RankedOrder)
    part = len(packed) // len(orders)
    rows = part // 8
    values = struct.unpack_from(f"<{rows}I{rows}f", packed, orders.index(order) * part)
    return dict(zip(values[:rows], values[rows:], strict=True))
