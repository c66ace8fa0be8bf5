"""A base checkpoint: its configuration and the tensors of its files, by headers; architectures that are known alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascribe.errors import InvalidInput, UnsupportedModel
from ascribe.sources.checkpoint_files import INDEX, WEIGHTS, check_config, open_folder, present, read_json, read_weights
from ascribe.sources.gguf_base import read_gguf
from ascribe.sources.safetensors_header import TensorInfo
from ascribe.spec import ModelSpec, Task

POINTER = "/model/base"
MODEL_TYPES: Mapping[Task, frozenset[str]] = {
    "sequence-classification": frozenset(
        {"bert", "roberta", "distilbert", "electra", "xlm-roberta", "deberta-v2", "mpnet"}
    ),
    "causal-lm": frozenset(
        {
            "llama", "mistral", "qwen2", "qwen3", "smollm3", "gpt2", "gpt_neox", "phi", "phi3", "gemma", "gemma2",
            "olmo", "olmo2", "starcoder2", "granite", "opt", "bloom",
        }
    ),
}  # fmt: skip
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "tokenizer.model", "sentencepiece.bpe.model", "spm.model", "added_tokens.json",
)  # fmt: skip
_PACKED = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "F8_E4M3", "F8_E5M2"})
"""Types of weights that stand for others; I64 and BOOL are those of positions and masks that some models save."""


@dataclass(frozen=True, slots=True)
class Base:
    """``files`` are all that is loaded, tokenizer included; ``gguf`` is the one with the weights, if it is GGUF."""

    folder: Path
    files: tuple[str, ...]
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    gguf: str | None = None

    @property
    def inputs_first(self) -> bool:
        """Whether its weights are ``[inputs, outputs]``, not as a Linear layer has them."""
        return bool(self.config["model_type"] == "gpt2")


def open_base(root: Path, model: ModelSpec, *, allow_gguf: bool) -> Base:
    """Raises as :func:`ascribe.sources.checkpoints.inspect_checkpoint`."""
    folder = open_folder(root, model.base, POINTER)
    if present(folder, ("adapter_config.json",)):
        # transformers would load it by itself, unseen by us and by the hash of the base.
        message = "the folder of the base holds an adapter: put it into a folder of its own, and name it as adapter"
        raise UnsupportedModel.at(POINTER, "unsupported_model", message)
    ggufs = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() == ".gguf")
    if ggufs and not present(folder, (WEIGHTS, INDEX)):
        gguf, config, tensors = read_gguf(folder, ggufs, allowed=allow_gguf)
        files = [gguf, *present(folder, ("config.json",))]
    else:
        gguf = None
        config = read_json(folder / "config.json", POINTER)
        check_config(config, POINTER)
        _check_type(model, config)
        weights, tensors = read_weights(folder, POINTER)
        files = ["config.json", *weights]
        _check_precision(config, tensors)
    _check_type(model, config)
    _check_length(model, config)
    return Base(folder, (*files, *present(folder, TOKENIZER_FILES)), config, tensors, gguf)


def _check_type(model: ModelSpec, config: Mapping[str, Any]) -> None:
    known = MODEL_TYPES[model.task]
    if config.get("model_type") not in known:
        message = f"model_type must be one of {sorted(known)} for task '{model.task}'"
        raise UnsupportedModel.at(POINTER, "unsupported_model", message)


def _check_precision(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> None:
    """Gradients are of Linear layers whose weights are numbers, not codes of numbers."""
    packed = any(len(info.shape) > 1 and info.dtype in _PACKED for info in tensors.values())
    if packed or config.get("quantization_config") or config.get("compression_config"):
        message = (
            "the base is quantised, and such layers are neither differentiated here nor run on a CPU: give the "
            "full-precision checkpoint that it was made of; an adapter trained on the quantised one fits it"
        )
        raise UnsupportedModel.at(POINTER, "quantised_base", message)


def _check_length(model: ModelSpec, config: Mapping[str, Any]) -> None:
    """A longer row than the model has positions for would fail in the middle of a pass, or mean nothing."""
    positions = config.get("max_position_embeddings", config.get("n_positions"))
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
