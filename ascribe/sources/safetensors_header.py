"""Reads a safetensors header by hand: names, dtypes and shapes, with every offset checked, no tensor loaded.

Format: 8 bytes little-endian header length, a JSON object, the data. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

MAX_HEADER_BYTES = 100 << 20

_DTYPE_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]


class BadSafetensors(ValueError):
    """The file is not a whole safetensors file; the message says in which way."""


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Tensor infos by name. Raises BadSafetensors for a truncated, overlapping or lying file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise BadSafetensors("the file is truncated: its header is longer than the file")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        return _check_entries(entries, data_bytes=size - 8 - length)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, BadSafetensors):
            raise
        raise BadSafetensors("the header is not the JSON of a safetensors file") from error


def _check_entries(entries: list[tuple[str, dict[str, object]]], *, data_bytes: int) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    position = 0
    for name, entry in entries:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list)):
            raise BadSafetensors("a tensor's entry has fields of the wrong type")
        if dtype not in _DTYPE_BYTES or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise BadSafetensors("a tensor has an unknown dtype or an impossible shape")
        begin, end = offsets
        if begin != position or end - begin != math.prod(shape) * _DTYPE_BYTES[dtype]:
            raise BadSafetensors("a tensor's offsets do not match its shape")
        position = end
        tensors[name] = TensorInfo(dtype, tuple(shape))
    if position != data_bytes:
        raise BadSafetensors("the file is truncated: its data is shorter or longer than its header says")
    return tensors
