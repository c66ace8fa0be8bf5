"""LoRA adapters: which kinds are differentiated, and whether their tensors fit the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascribe.errors import InvalidInput, Problem, UnsupportedModel
from ascribe.sources.base_model import Base
from ascribe.sources.checkpoint_files import check_config
from ascribe.sources.outputs import is_output_embedding
from ascribe.sources.safetensors_header import TensorInfo

_POINTER = "/model/adapter"
_PEFT_PREFIX = "base_model.model."
LORA_FIELDS = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "use_rslora",
    "modules_to_save", "layers_to_transform", "layers_pattern", "fan_in_fan_out",
)  # fmt: skip
"""Fields of an adapter's configuration that say what it computes, and that it is rebuilt from."""
_OF_TRAINING = frozenset({
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "bias", "init_lora_weights", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "qalora_group_size", "runtime_config",
})  # fmt: skip
"""Fields that do not matter once it is trained, or that are looked at by name."""
_OTHER_KINDS = (
    "use_qalora", "lora_bias", "alora_invocation_tokens", "target_parameters", "trainable_token_indices",
    "layer_replication", "megatron_config", "velora_config", "monteclora_config", "use_bdlora", "arrow_config",
    "kasa_config", "ensure_weight_tying",
)  # fmt: skip
"""What peft can do beside, for the message; fields that a later peft adds are refused as well."""
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""``init_lora_weights`` that leave the base as it was; others (PiSSA, OLoRA, LoftQ, ...) take something out of it."""


def check_adapter_config(config: Mapping[str, Any]) -> None:
    """Raises UnsupportedModel: it adds more than ``scaling x B A``, or to another base than the one saved."""
    check_config(config, _POINTER)
    if str(config.get("peft_type")).upper() != "LORA":
        raise _unsupported("peft_type must be LORA")
    if config.get("use_dora"):
        raise _unsupported(
            "DoRA adapters are not supported, whose norms make each update depend on the whole weight: train the "
            "adapter without use_dora, or merge it into the base and select its modules"
        )
    if config.get("bias", "none") != "none":
        raise _unsupported("biases trained with the adapter are not supported (bias must be 'none')")
    used = {name for name, value in config.items() if value and name not in _OF_TRAINING and name not in LORA_FIELDS}
    used.discard("use_dora")
    if used:
        named = [name for name in _OTHER_KINDS if name in used] or ["fields that this version does not know"]
        raise _unsupported(
            f"the adapter is not plain LoRA ({', '.join(named)}): train it without, or merge it into the base and "
            "select its modules"
        )
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        raise _unsupported(
            "the adapter began by changing the base (init_lora_weights): save it as plain LoRA with peft's "
            "path_initial_model_for_weight_conversion"
        )


def split_adapter(adapter: Mapping[str, TensorInfo], base: Base) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """LoRA matrices, checked against the base's weights, and the other tensors saved with them (the head)."""
    lora: dict[str, TensorInfo] = {}
    saved: dict[str, TensorInfo] = {}
    problems = []
    for name, info in adapter.items():
        path = name.removeprefix(_PEFT_PREFIX)
        if ".lora_" not in path:
            saved[path] = info
            continue
        if is_output_embedding(path):
            raise _unsupported("LoRA on the output embeddings is not supported: leave them out of target_modules")
        if not path.endswith((".lora_A.weight", ".lora_B.weight")):
            raise _unsupported("the adapter holds more than LoRA matrices of Linear layers: train it on those alone")
        lora[path] = info
        if not _fits(path, info, adapter, base):
            problems.append(Problem(_POINTER, "adapter_does_not_fit", "a LoRA matrix does not fit the base"))
    if not lora:
        raise _unsupported("the adapter holds no LoRA matrices")
    if problems:
        raise InvalidInput(
            f"{len(problems)} of {len(lora)} LoRA matrices do not fit the base checkpoint", errors=problems
        )
    return lora, saved


def check_saved_by_language_model(saved: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]) -> None:
    """Raises InvalidInput: what the adapter brings beside its matrices has another size than what it replaces."""
    if any(name in base and info.shape != base[name].shape for name, info in saved.items()):
        message = (
            "embeddings saved with the adapter have another number of tokens than the base's: resize and save the base"
        )
        raise InvalidInput.at(_POINTER, "adapter_does_not_fit", message)


def _unsupported(message: str) -> UnsupportedModel:
    return UnsupportedModel.at(_POINTER, "unsupported_adapter", message)


def _fits(path: str, info: TensorInfo, adapter: Mapping[str, TensorInfo], base: Base) -> bool:
    is_a = ".lora_A." in path
    module = path.split(".lora_A." if is_a else ".lora_B.")[0]
    # An encoder saved without its task prefix ("encoder.…") is loaded under it ("bert.encoder.…").
    weight = base.tensors.get(f"{module}.weight") or base.tensors.get(f"{module.partition('.')[2]}.weight")
    other = path.replace(".lora_A.", ".lora_B.") if is_a else path.replace(".lora_B.", ".lora_A.")
    partner = adapter.get(_PEFT_PREFIX + other)
    if weight is None or partner is None or len(info.shape) != 2 or len(weight.shape) != 2:
        return False
    outputs, inputs = reversed(weight.shape) if base.inputs_first else weight.shape
    rank = partner.shape[0] if not is_a else info.shape[0]
    return info.shape == ((rank, inputs) if is_a else (outputs, rank))
