"""Opens a checkpoint's files without loading them: folders free of code, JSON configurations, safetensors headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ascribe.errors import InvalidInput, UnsafeCheckpoint
from ascribe.sources.paths import resolve
from ascribe.sources.safetensors_header import BadSafetensors, TensorInfo, read_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9_.-]{1,200}\.safetensors")
UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".pt2", ".ckpt", ".py", ".h5", ".msgpack"})
MAX_JSON_BYTES = 64 << 20


def open_folder(root: Path, relative: str, pointer: str) -> Path:
    folder = resolve(root, relative, pointer)
    if not folder.is_dir():
        raise InvalidInput.at(pointer, "not_a_folder", "must be a folder that holds a checkpoint")
    unsafe = sorted({entry.suffix for entry in folder.iterdir() if entry.suffix.lower() in UNSAFE_SUFFIXES})
    if unsafe:
        message = (
            f"{', '.join(unsafe)} files can run code when loaded: convert the weights to safetensors and remove them"
        )
        raise UnsafeCheckpoint.at(pointer, "unsafe_checkpoint", message)
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.resolve().is_relative_to(root.resolve()):
            raise InvalidInput.at(pointer, "path_outside_root", "a file of the checkpoint links out of the data root")
    return folder


def present(folder: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (folder / name).exists()]


def read_json(path: Path, pointer: str) -> dict[str, Any]:
    if not path.exists():
        raise InvalidInput.at(pointer, "missing_file", f"the folder has no {path.name}")
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput.at(pointer, "malformed_file", f"{path.name} is not a JSON object")
    return value


def check_config(config: Mapping[str, Any], pointer: str) -> None:
    if "transformers_weights" in config:
        message = "the configuration names a weights file of its own (transformers_weights): name it model.safetensors"
        raise InvalidInput.at(pointer, "unsupported_model", message)
    if "auto_map" in config or any(key.endswith("_internal") for key in config):
        raise UnsafeCheckpoint.at(
            pointer, "unsafe_checkpoint", "the configuration asks for code of its own (auto_map or an internal key)"
        )


def read_tensors(path: Path, pointer: str) -> dict[str, TensorInfo]:
    if not path.exists():
        raise InvalidInput.at(pointer, "missing_file", f"the folder has no {path.name}")
    try:
        return read_header(path)
    except BadSafetensors as error:
        raise InvalidInput.at(pointer, "malformed_file", f"{path.name}: {error}") from error


def read_weights(folder: Path, pointer: str) -> tuple[list[str], dict[str, TensorInfo]]:
    """Files and tensors of a checkpoint: one file, or an index and its shards. Where both are there, the one is loaded.

    Raises InvalidInput: a file is missing or damaged, or the index does not say what is in the shards.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return [WEIGHTS], read_tensors(folder / WEIGHTS, pointer)
    placed = _placed(read_json(folder / INDEX, pointer), pointer)
    shards = sorted(set(placed.values()))
    missing = len(shards) - len(present(folder, shards))
    if missing:
        message = f"the folder lacks {missing} of the {len(shards)} shards that {INDEX} names"
        raise InvalidInput.at(pointer, "missing_file", message)
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        held = read_tensors(folder / shard, pointer)
        if held.keys() != {name for name, place in placed.items() if place == shard}:
            message = f"{shard} holds other tensors than {INDEX} says: save the checkpoint anew"
            raise InvalidInput.at(pointer, "malformed_file", message)
        tensors |= held
    return [INDEX, *shards], tensors


def _placed(index: Mapping[str, Any], pointer: str) -> dict[str, str]:
    """The shard of every tensor; a shard is a file beside the index, and nothing that leads elsewhere."""
    placed = index.get("weight_map")
    if not isinstance(index.get("metadata"), dict) or not isinstance(placed, dict) or not placed:
        message = f"{INDEX} lacks its metadata or weight_map"
        raise InvalidInput.at(pointer, "malformed_file", message)
    if not all(isinstance(shard, str) and _SHARD.fullmatch(shard) for shard in placed.values()):
        message = f"{INDEX} names something else than .safetensors files of its own folder"
        raise InvalidInput.at(pointer, "malformed_file", message)
    return placed
