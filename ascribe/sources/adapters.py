"""LoRA adapters: which kinds are differentiated, and whether their tensors fit the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascribe.errors import InvalidInput, Problem, UnsupportedModel
from ascribe.sources.checkpoint_files import check_config
from ascribe.sources.safetensors_header import TensorInfo

_PEFT_PREFIX = "base_model.model."


def check_adapter_config(config: Mapping[str, Any]) -> None:
    pointer = "/model/adapter"
    check_config(config, pointer)
    problems = {
        "peft_type must be LORA": str(config.get("peft_type")).upper() != "LORA",
        "DoRA adapters are not supported": bool(config.get("use_dora")),
        "biases trained with the adapter are not supported (bias must be 'none')": config.get("bias", "none") != "none",
    }
    for message, wrong in problems.items():
        if wrong:
            raise UnsupportedModel.at(pointer, "unsupported_adapter", message)


def split_adapter(
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
