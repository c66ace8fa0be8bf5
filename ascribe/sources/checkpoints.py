"""Inspects a base checkpoint, and its LoRA adapter if it has one, from JSON and safetensors headers alone.

Refused here, before anything is loaded: formats that can run code when loaded, configurations that ask for code,
adapters whose tensors do not fit the base, adapters of a kind we do not differentiate, models without a trained head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascribe.errors import InvalidInput, UnsupportedModel
from ascribe.fingerprint import files_sha256
from ascribe.sources.adapters import check_adapter_config, split_adapter
from ascribe.sources.checkpoint_files import check_config, open_folder, present, read_json, read_tensors
from ascribe.sources.safetensors_header import TensorInfo
from ascribe.sources.selection import select_modules
from ascribe.spec import ModelSpec, ParametersSpec, Task

MODEL_TYPES: Mapping[Task, frozenset[str]] = {
    "sequence-classification": frozenset(
        {"bert", "roberta", "distilbert", "electra", "xlm-roberta", "deberta-v2", "mpnet"}
    ),
    "causal-lm": frozenset({"llama", "mistral", "qwen2", "qwen3"}),
}
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spm.model", "added_tokens.json",
)  # fmt: skip
HEADS = ("classifier", "score")


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
class Adapter:
    """A LoRA adapter that fits its base."""

    folder: Path
    files: tuple[str, ...]

    def sha256(self) -> str:
        return files_sha256(self.folder, self.files)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the headers say. ``blocks`` are in the order their gradients are stored.

    ``num_labels`` of a language model is the size of its vocabulary.
    """

    task: Task
    base: Path
    base_files: tuple[str, ...]
    adapter: Adapter | None
    num_labels: int
    label_names: tuple[str, ...] | None
    blocks: tuple[BlockShape, ...]
    warnings: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def block_names(self) -> tuple[str, ...]:
        return tuple(block.name for block in self.blocks)

    def base_sha256(self) -> str:
        """Hash of every base file that is loaded, tokenizer included. Reads them whole."""
        return files_sha256(self.base, self.base_files)

    def adapter_sha256(self) -> str | None:
        return None if self.adapter is None else self.adapter.sha256()


def inspect_checkpoint(root: Path, model: ModelSpec, parameters: ParametersSpec) -> Checkpoint:
    """Check ``model`` below ``root`` and list the blocks that ``parameters`` selects.

    Raises:
        UnsafeCheckpoint: a pickle-based file or a configuration that asks for code.
        UnsupportedModel: an architecture or adapter kind that is not handled.
        InvalidInput: missing or truncated files, tensors that do not fit, no trained head, a module that is not there.
    """
    base = open_folder(root, model.base, "/model/base")
    config = read_json(base / "config.json", "/model/base")
    check_config(config, "/model/base")
    known = MODEL_TYPES[model.task]
    if config.get("model_type") not in known:
        message = f"model_type must be one of {sorted(known)} for task '{model.task}'"
        raise UnsupportedModel.at("/model/base", "unsupported_model", message)
    if present(base, ("adapter_config.json",)):
        # transformers would load it by itself, unseen by us and by the hash of the base.
        message = "the folder of the base holds an adapter: put it into a folder of its own, and name it as adapter"
        raise UnsupportedModel.at("/model/base", "unsupported_model", message)
    _check_length(model, config)
    tensors = read_tensors(base / "model.safetensors", "/model/base")
    if model.adapter is None:
        chosen = select_modules(tensors, parameters.modules)
        return _checkpoint(model.task, base, None, [config], [tensors], chosen, ())
    folder = open_folder(root, model.adapter, "/model/adapter")
    adapter_config = read_json(folder / "adapter_config.json", "/model/adapter")
    check_adapter_config(adapter_config)
    lora, saved = split_adapter(read_tensors(folder / "adapter_model.safetensors", "/model/adapter"), tensors)
    own_config = present(folder, ("config.json",))
    configs = [config]
    if own_config:
        # Trainers save the model's config beside the adapter; it is the one that knows the label names.
        configs.insert(0, read_json(folder / "config.json", "/model/adapter"))
        check_config(configs[0], "/model/adapter")
    adapter = Adapter(folder, ("adapter_config.json", "adapter_model.safetensors", *own_config))
    chosen = {**lora, **saved} if parameters.select == "adapter_and_head" else lora
    return _checkpoint(model.task, base, adapter, configs, [saved, tensors], chosen, _warnings(adapter_config, base))


def _check_length(model: ModelSpec, config: Mapping[str, Any]) -> None:
    """A longer row than the model has positions for would fail in the middle of a pass."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or not config.get("position_biased_input", True):  # DeBERTa's may be relative
        return
    positions -= _unused_positions(config)
    if model.max_length > positions:
        message = f"the model has positions for {positions} tokens: lower max_length"
        raise InvalidInput.at("/model/max_length", "too_long_for_model", message)


def _unused_positions(config: Mapping[str, Any]) -> int:
    """Some count positions from one above the padding token's id, and MPNet takes that to be 1 whatever it is."""
    match config["model_type"]:
        case "roberta" | "xlm-roberta":
            return int(config.get("pad_token_id") or 0) + 1
        case "mpnet":
            return 2
        case _:
            return 0


def _checkpoint(
    task: Task,
    base: Path,
    adapter: Adapter | None,
    configs: list[dict[str, Any]],
    with_head: list[Mapping[str, TensorInfo]],
    chosen: Mapping[str, TensorInfo],
    warnings: tuple[str, ...],
) -> Checkpoint:
    if task == "causal-lm":
        num_labels, label_names = _vocabulary(with_head[-1]), None
    else:
        num_labels = _num_labels(with_head, "/model/base" if adapter is None else "/model/adapter")
        label_names = _label_names(configs, num_labels)
    return Checkpoint(
        task=task,
        base=base,
        base_files=("config.json", "model.safetensors", *present(base, TOKENIZER_FILES)),
        adapter=adapter,
        num_labels=num_labels,
        label_names=label_names,
        blocks=tuple(BlockShape.of(name, chosen[name].shape) for name in sorted(chosen)),
        warnings=warnings,
    )


def _vocabulary(tensors: Mapping[str, TensorInfo]) -> int:
    """Rows of the output embeddings, which may be those of the input."""
    for ending in ("lm_head.weight", "embed_tokens.weight"):
        for name, info in tensors.items():
            if name.endswith(ending) and len(info.shape) == 2:
                return info.shape[0]
    raise InvalidInput.at("/model/base", "incomplete_checkpoint", "the base holds no token embeddings: save it whole")


def _num_labels(with_head: list[Mapping[str, TensorInfo]], pointer: str) -> int:
    """Rows of the last matrix of the classification head, in the adapter or else in the base."""
    for tensors in with_head:
        shapes = [
            info.shape
            for name, info in sorted(tensors.items())
            if name.split(".")[0] in HEADS and name.endswith("weight") and len(info.shape) == 2
        ]
        if shapes:
            # Two-layer heads (classifier.dense, classifier.out_proj): the output layer sorts last.
            if shapes[-1][0] < 2:
                raise InvalidInput.at(
                    pointer,
                    "one_label",
                    "the head has one output, a regression: cross-entropy is of two labels or more",
                )
            return shapes[-1][0]
    message = {
        "/model/base": "the base holds no trained classification head: name an adapter that brings one",
        "/model/adapter": "neither adapter nor base holds a trained classification head: save it with the adapter "
        "(modules_to_save)",
    }[pointer]
    raise InvalidInput.at(pointer, "no_trained_head", message)


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
