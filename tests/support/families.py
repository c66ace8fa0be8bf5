"""A tiny random language model of every family that is handled, with LoRA on some of its layers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.tiny import WORDS, lm_tokenizer

TARGETS = {
    "llama": ["q_proj", "down_proj"],
    "mistral": ["q_proj", "v_proj"],
    "qwen2": ["k_proj", "v_proj"],
    "qwen3": ["q_proj", "o_proj"],
    "smollm3": ["q_proj", "v_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "gpt_neox": ["query_key_value", "dense"],
    "phi": ["q_proj", "fc1"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "gemma": ["q_proj", "v_proj"],
    "olmo": ["q_proj", "v_proj"],
    "olmo2": ["q_proj", "v_proj"],
    "starcoder2": ["q_proj", "c_fc"],
    "granite": ["q_proj", "v_proj"],
}
_SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
    "num_key_value_heads": 1, "intermediate_size": 24, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "gpt2": {"n_inner": 24},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
}


def make_family(root: Path, model_type: str, *, tied: bool | None = None, **lora: Any) -> None:
    """``root/base`` and ``root/adapter``; the adapter's matrices are random, so that none has a zero gradient."""
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS) + 3, **_SIZES, **_OF_FAMILY.get(model_type, {})}
    sizes |= {} if tied is None else {"tie_word_embeddings": tied}
    config = AutoConfig.for_model(model_type, **sizes)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # theirs has no annotations
    lm_tokenizer().save_pretrained(root / "base")
    model.save_pretrained(root / "base")
    options: dict[str, Any] = {
        "r": 2,
        "lora_alpha": 8,
        "target_modules": TARGETS[model_type],
        "fan_in_fan_out": model_type == "gpt2",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of embeddings among the targets
        tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **(options | lora)))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned.save_pretrained(str(root / "adapter"), save_embedding_layers=False)
