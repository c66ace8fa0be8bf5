"""Reads a GGUF header by hand: settings, and names, types and shapes of tensors, every count and offset checked.

The package ``gguf`` reads what it is told: a count of 2^60 in a short file is a loop without end. It comes after us, in
the worker. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

from ascribe.sources.safetensors_header import TensorInfo

MAX_HEADER_BYTES = 100 << 20
MAX_NAME_BYTES = 200
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_READABLE = frozenset(
    {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
)


class BadGguf(ValueError):
    """The file is not a whole GGUF file that can be read; the message says in which way."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``settings`` without arrays; of those, ``lengths``. Shapes are as in torch: outputs before inputs."""

    settings: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises BadGguf for a truncated, overlapping or lying file, and for types of weights that are not read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        cursor = _Cursor(file, min(size, MAX_HEADER_BYTES))
        if cursor.take(4) != b"GGUF" or cursor.number("I") not in _VERSIONS:
            raise BadGguf("the file is not a little-endian GGUF file of version 2 or 3")
        tensor_count, setting_count = cursor.number("Q"), cursor.number("Q")
        settings, lengths = _settings(cursor, setting_count)
        alignment = settings.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
            raise BadGguf("the alignment is not a power of two")
        placed = [_tensor(cursor) for _ in range(cursor.bounded(tensor_count, 24))]
        start = -(-cursor.at // alignment) * alignment
    return GgufHeader(settings, lengths, _checked(placed, data_bytes=size - start, alignment=alignment))


class _Cursor:
    """A place in the header that never leaves it."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit, self.at = file, limit, 0

    def take(self, size: int) -> bytes:
        self._move(size)
        return self._file.read(size)

    def skip(self, size: int) -> None:
        self._move(size)
        self._file.seek(size, 1)

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(form)))[0]

    def name(self) -> str:
        size = self.number("Q")
        if size > MAX_NAME_BYTES:
            raise BadGguf("a name in the header is too long")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise BadGguf("a name in the header is not text") from None

    def bounded(self, count: int, least: int) -> int:
        """``count`` of things of ``least`` bytes or more each, if there can be as many."""
        if count * least > self._limit - self.at:
            raise BadGguf("the file is truncated: its header is longer than the file")
        return count

    def _move(self, size: int) -> None:
        self.at += self.bounded(size, 1)


def _settings(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, int]]:
    settings: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for _ in range(cursor.bounded(count, 13)):
        name, kind = cursor.name(), cursor.number("I")
        if name in settings or name in lengths:
            raise BadGguf("a setting is there twice")
        if kind == _ARRAY:
            lengths[name] = _skip_array(cursor)
        elif kind == _STRING:
            settings[name] = cursor.take(cursor.number("Q")).decode(errors="replace")
        else:
            settings[name] = cursor.number(_scalar(kind))
    return settings, lengths


def _skip_array(cursor: _Cursor) -> int:
    kind, length = cursor.number("I"), int(cursor.number("Q"))
    if kind == _STRING:
        for _ in range(cursor.bounded(length, 8)):
            cursor.skip(cursor.number("Q"))
    else:
        cursor.skip(length * struct.calcsize(_scalar(kind)))
    return length


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise BadGguf("a setting has an unknown type")
    return _SCALARS[kind]


@dataclass(frozen=True, slots=True)
class _Placed:
    name: str
    info: TensorInfo
    offset: int
    size: int


def _tensor(cursor: _Cursor) -> _Placed:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name, dimensions = cursor.name(), cursor.number("I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise BadGguf("a tensor has an impossible shape")
    shape = [int(cursor.number("Q")) for _ in range(dimensions)]
    kind, offset = cursor.number("I"), int(cursor.number("Q"))
    known = {int(member): member for member in GGMLQuantizationType}
    if kind not in known or known[kind].name not in _READABLE:
        raise BadGguf(f"a tensor has a type that is not read: one of {', '.join(sorted(_READABLE))} is")
    numbers, size = GGML_QUANT_SIZES[known[kind]]
    if shape[0] % numbers:
        raise BadGguf("a tensor's rows are not whole blocks of its type")
    return _Placed(name, TensorInfo(known[kind].name, tuple(reversed(shape))), offset, prod(shape) // numbers * size)


def _checked(placed: list[_Placed], *, data_bytes: int, alignment: int) -> dict[str, TensorInfo]:
    end = 0
    for tensor in sorted(placed, key=lambda tensor: tensor.offset):
        if tensor.offset != -(-end // alignment) * alignment:
            raise BadGguf("a tensor's offset does not match the tensors before it")
        end = tensor.offset + tensor.size
    if end > data_bytes:
        raise BadGguf("the file is truncated: its tensors are longer than the file")
    tensors = {tensor.name: tensor.info for tensor in placed}
    if len(tensors) != len(placed):
        raise BadGguf("a tensor is there twice")
    return tensors
