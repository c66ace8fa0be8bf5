"""A base whose weights are one GGUF file: the configuration and tensors it stands for, by their Hugging Face names.

Only files that transformers turns into the model they were made of are taken: a setting or a tensor that it would pass
over (rotary scaling, experts, a sliding window) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ascribe.errors import InvalidInput, UnsupportedModel
from ascribe.sources.gguf_header import BadGguf, GgufHeader, read_gguf_header
from ascribe.sources.safetensors_header import TensorInfo

_POINTER = "/model/base"
ARCHITECTURES = ("llama", "qwen2", "qwen3")
MAX_LAYERS = 1024
_REQUIRED = frozenset({
    "context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.layer_norm_rms_epsilon",
})  # fmt: skip
"""Settings of an architecture that transformers would make up."""
_SETTINGS = _REQUIRED | {
    "rope.dimension_count", "rope.freq_base", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "vocab_size",
}  # fmt: skip
"""Those that it reads, or that show in the shapes."""


_SIZES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
}


def read_gguf(
    folder: Path, names: Sequence[str], *, allowed: bool
) -> tuple[str, dict[str, Any], dict[str, TensorInfo]]:
    """The file, and what it says as the configuration and the tensors of a checkpoint.

    Raises:
        UnsupportedModel: GGUF is not switched on here, or the file is of a model that is not read faithfully.
        InvalidInput: there are several files, or the file is damaged.
    """
    if not allowed:
        message = (
            "the base is a GGUF file, which this server does not take: convert it to safetensors, or have the operator "
            "switch it on (ASCRIBE_ALLOW_GGUF)"
        )
        raise UnsupportedModel.at(_POINTER, "gguf_not_allowed", message)
    if len(names) > 1:
        raise InvalidInput.at(_POINTER, "several_files", f"the folder has {len(names)} GGUF files: leave one")
    if find_spec("gguf") is None:
        message = "GGUF is switched on, and the package gguf is not installed: pip install 'ascribe[gguf]'"
        raise UnsupportedModel.at(_POINTER, "gguf_not_allowed", message)
    try:
        header = read_gguf_header(folder / names[0])
        config = _config(header)
        if "tokenizer.ggml.tokens" not in header.lengths and not (folder / "tokenizer.json").exists():
            raise BadGguf("it has no tokenizer, and there is none beside it")
    except BadGguf as error:
        raise InvalidInput.at(_POINTER, "malformed_file", f"the GGUF file: {error}") from error
    return names[0], config, _tensors(header, config)


def _config(header: GgufHeader) -> dict[str, Any]:
    architecture = header.settings.get("general.architecture")
    if architecture not in ARCHITECTURES:
        message = f"the GGUF file's architecture must be one of {', '.join(ARCHITECTURES)}"
        raise UnsupportedModel.at(_POINTER, "unsupported_model", message)
    own = {
        name.removeprefix(f"{architecture}."): value
        for name, value in {**header.settings, **header.lengths}.items()
        if name.startswith(f"{architecture}.")
    }
    if not own.keys() <= _SETTINGS:
        message = "the GGUF file has settings of its architecture that are not read: give the checkpoint it was made of"
        raise UnsupportedModel.at(_POINTER, "unsupported_model", message)
    if not own.keys() >= _REQUIRED:
        raise BadGguf(f"it lacks settings of its architecture: {', '.join(sorted(_REQUIRED - own.keys()))}")
    layers, positions = own["block_count"], own["context_length"]
    if not isinstance(layers, int) or not isinstance(positions, int) or not 0 < layers <= MAX_LAYERS:
        raise BadGguf("its counts of layers or positions cannot be")
    return {
        "model_type": architecture,
        "num_hidden_layers": layers,
        "max_position_embeddings": positions,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **{name: own[key] for name, key in _SIZES.items() if isinstance(own.get(key), int)},
    }


def _tensors(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """By every name that checkpoints of any family have for them: adapters name theirs by one of these."""
    from gguf.constants import MODEL_ARCH_NAMES
    from gguf.tensor_mapping import get_tensor_name_map

    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == config["model_type"])
    names = get_tensor_name_map(architecture, config["num_hidden_layers"]).mapping
    by_module: dict[str, list[str]] = {}
    for name, (_, module) in names.items():
        by_module.setdefault(module, []).append(name)
    tensors: dict[str, TensorInfo] = {}
    for name, info in header.tensors.items():
        module, _, kind = name.rpartition(".")
        if module not in by_module or module == "rope_freqs":
            message = "the GGUF file has tensors that are not read: give the checkpoint it was made of"
            raise UnsupportedModel.at(_POINTER, "unsupported_model", message)
        tensors |= {f"{alias}.{kind}": info for alias in by_module[module]}
    return tensors
