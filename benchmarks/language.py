"""A language model of random weights and SmolLM2's form, with a third of its layers, and rows for it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.subject import Subject

CHECKPOINT = {"base": "language-model", "adapter": "language-lora"}
_LAYERS = 10


def write_language_model(root: Path, subject: Subject) -> None:
    """Base and adapter below ``root``, with the subject's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(subject.data_root / subject.base, local_files_only=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=_LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(root / CHECKPOINT["base"])
    tokenizer.save_pretrained(root / CHECKPOINT["base"])
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")
    get_peft_model(model, lora).save_pretrained(str(root / CHECKPOINT["adapter"]))


def write_completions(root: Path, subject: Subject, name: str, count: int, tokens: int) -> str:
    """Rows of two texts of ``tokens`` tokens and more, in a file of this name; its path below ``root``."""
    texts = [row["text"] for row in subject.long_rows(f"language-{name}", 2 * count, tokens)]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in pairs]
    (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{name}.jsonl"
