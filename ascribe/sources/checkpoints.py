"""Inspects a base checkpoint and its LoRA adapter from JSON and safetensors headers alone, before anything is loaded.

Refused here: formats that can run code when loaded, configurations that ask for code, adapters whose tensors do
not fit the base, adapters of a kind we do not differentiate, and models without a trained head.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascribe.errors import InvalidInput, Problem, UnsafeCheckpoint, UnsupportedModel
from ascribe.fingerprint import files_sha256
from ascribe.sources.paths import resolve
from ascribe.sources.safetensors_header import BadSafetensors, TensorInfo, read_header
from ascribe.spec import ModelSpec

UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".pt2", ".ckpt", ".py", ".h5", ".msgpack"})
MODEL_TYPES = frozenset({"bert", "roberta", "distilbert", "electra", "xlm-roberta", "deberta-v2", "mpnet"})
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spm.model", "added_tokens.json",
)  # fmt: skip
MAX_JSON_BYTES = 64 << 20
HEADS = ("classifier", "score")
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One selected tensor as the numerics see it: short side first, a vector is R = 1."""

    name: str
    rank: int
    long_side: int

    @property
    def size(self) -> int:
        return self.rank * self.long_side

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...]) -> BlockShape:
        short, long = (1, shape[0]) if len(shape) == 1 else sorted(shape)
        return cls(name, short, long)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the headers say. ``blocks`` are in the order their gradients are stored."""

    base: Path
    adapter: Path
    base_files: tuple[str, ...]
    adapter_files: tuple[str, ...]
    num_labels: int
    label_names: tuple[str, ...] | None
    blocks: tuple[BlockShape, ...]
    warnings: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(block.size for block in self.blocks)

    def base_sha256(self) -> str:
        """Hash of every base file that is loaded, tokenizer included. Reads them whole."""
        return files_sha256(self.base, self.base_files)

    def adapter_sha256(self) -> str:
        return files_sha256(self.adapter, self.adapter_files)


def inspect_checkpoint(root: Path, model: ModelSpec, select: str) -> Checkpoint:
    """Check ``model`` below ``root`` and list the blocks that ``select`` names.

    Raises:
        UnsafeCheckpoint: a pickle-based file or a configuration that asks for code.
        UnsupportedModel: an architecture or adapter kind that is not handled.
        InvalidInput: missing or truncated files, tensors that do not fit, no trained head.
    """
    base = _folder(root, model.base, "/model/base")
    adapter = _folder(root, model.adapter, "/model/adapter")
    base_config = _read_json(base / "config.json", "/model/base")
    _check_config(base_config, "/model/base")
    if base_config.get("model_type") not in MODEL_TYPES:
        raise UnsupportedModel.at(
            "/model/base", "unsupported_model", f"model_type must be one of {sorted(MODEL_TYPES)}"
        )
    adapter_config = _read_json(adapter / "adapter_config.json", "/model/adapter")
    _check_adapter_config(adapter_config)

    base_tensors = _tensors(base / "model.safetensors", "/model/base")
    adapter_tensors = _tensors(adapter / "adapter_model.safetensors", "/model/adapter")
    lora, saved = _split_adapter(adapter_tensors, base_tensors)
    num_labels = _num_labels(saved, base_tensors)
    chosen = {**lora, **saved} if select == "adapter_and_head" else lora
    extra_config = adapter / "config.json"
    name_sources = [base_config]
    if extra_config.exists():
        # Trainers save the model's config beside the adapter; it is the one that knows the label names.
        name_sources.insert(0, _read_json(extra_config, "/model/adapter"))
        _check_config(name_sources[0], "/model/adapter")
    return Checkpoint(
        base=base,
        adapter=adapter,
        base_files=("config.json", "model.safetensors", *_present(base, TOKENIZER_FILES)),
        adapter_files=("adapter_config.json", "adapter_model.safetensors", *_present(adapter, ("config.json",))),
        num_labels=num_labels,
        label_names=_label_names(name_sources, num_labels),
        blocks=tuple(BlockShape.of(name, chosen[name].shape) for name in sorted(chosen)),
        warnings=_warnings(adapter_config, base),
    )


def _folder(root: Path, relative: str, pointer: str) -> Path:
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


def _present(folder: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (folder / name).exists()]


def _read_json(path: Path, pointer: str) -> dict[str, Any]:
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


def _check_config(config: Mapping[str, Any], pointer: str) -> None:
    if "auto_map" in config or any(key.endswith("_internal") for key in config):
        raise UnsafeCheckpoint.at(
            pointer, "unsafe_checkpoint", "the configuration asks for code of its own (auto_map or an internal key)"
        )


def _check_adapter_config(config: Mapping[str, Any]) -> None:
    pointer = "/model/adapter"
    _check_config(config, pointer)
    problems = {
        "peft_type must be LORA": str(config.get("peft_type")).upper() != "LORA",
        "DoRA adapters are not supported": bool(config.get("use_dora")),
        "biases trained with the adapter are not supported (bias must be 'none')": config.get("bias", "none") != "none",
    }
    for message, wrong in problems.items():
        if wrong:
            raise UnsupportedModel.at(pointer, "unsupported_adapter", message)


def _tensors(path: Path, pointer: str) -> dict[str, TensorInfo]:
    if not path.exists():
        raise InvalidInput.at(pointer, "missing_file", f"the folder has no {path.name}")
    try:
        return read_header(path)
    except BadSafetensors as error:
        raise InvalidInput.at(pointer, "malformed_file", f"{path.name}: {error}") from error


def _split_adapter(
    adapter: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]
) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """LoRA matrices, checked against the base's weights, and the other tensors saved with them (the head)."""
    lora: dict[str, TensorInfo] = {}
    saved: dict[str, TensorInfo] = {}
    problems = []
    for name, info in adapter.items():
        path = name.removeprefix(_PEFT_PREFIX)
        if ".lora_A." in path or ".lora_B." in path:
            lora[path] = info
            if not _fits(path, info, adapter, base):
                problems.append(
                    Problem("/model/adapter", "adapter_does_not_fit", "a LoRA matrix does not fit the base")
                )
        else:
            saved[path] = info
    if not lora:
        raise UnsupportedModel.at("/model/adapter", "unsupported_adapter", "the adapter holds no LoRA matrices")
    if problems:
        raise InvalidInput(
            f"{len(problems)} of {len(lora)} LoRA matrices do not fit the base checkpoint", errors=problems
        )
    return lora, saved


def _fits(path: str, info: TensorInfo, adapter: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]) -> bool:
    is_a = ".lora_A." in path
    module = path.split(".lora_A." if is_a else ".lora_B.")[0]
    # An encoder saved without its task prefix ("encoder.…") is loaded under it ("bert.encoder.…").
    weight = base.get(f"{module}.weight") or base.get(f"{module.partition('.')[2]}.weight")
    other = path.replace(".lora_A.", ".lora_B.") if is_a else path.replace(".lora_B.", ".lora_A.")
    partner = adapter.get(_PEFT_PREFIX + other)
    if weight is None or partner is None or len(info.shape) != 2 or len(weight.shape) != 2:
        return False
    outputs, inputs = weight.shape
    rank = partner.shape[0] if not is_a else info.shape[0]
    return info.shape == ((rank, inputs) if is_a else (outputs, rank))


def _num_labels(saved: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]) -> int:
    """Rows of the last matrix of the classification head, in the adapter or else in the base."""
    for tensors in (saved, base):
        shapes = [
            info.shape
            for name, info in sorted(tensors.items())
            if name.split(".")[0] in HEADS and name.endswith("weight") and len(info.shape) == 2
        ]
        if shapes:
            # Two-layer heads (classifier.dense, classifier.out_proj): the output layer sorts last.
            return shapes[-1][0]
    raise InvalidInput.at(
        "/model/adapter",
        "no_trained_head",
        "neither adapter nor base holds a trained classification head: save it with the adapter (modules_to_save)",
    )


def _label_names(configs: list[dict[str, Any]], num_labels: int) -> tuple[str, ...] | None:
    for config in configs:
        names = config.get("id2label")
        if isinstance(names, dict) and set(names) == {str(i) for i in range(num_labels)}:
            return tuple(str(names[str(i)]) for i in range(num_labels))
    return None


def _warnings(adapter_config: Mapping[str, Any], base: Path) -> tuple[str, ...]:
    stated = str(adapter_config.get("base_model_name_or_path") or "")
    if stated and Path(stated).name != base.name:
        return ("the adapter names another base checkpoint than the one given; its tensors fit this one",)
    return ()


def gradient_bytes(rows: int, checkpoint: Checkpoint) -> int:
    """Disk that the float32 gradients of ``rows`` rows take."""
    return rows * checkpoint.parameters * 4
