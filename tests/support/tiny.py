"""A tiny real checkpoint, base and LoRA adapter, made in a second: for tests where the numbers do not matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SENTENCE = "the a cat dog sat ran on under mat tree red blue big small how do i undo commit what is love tell me joke"
WORDS = SENTENCE.split()
LABELS = ("animals", "coding", "emotion")
TARGETS = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "electra": ["query", "value"],
    "xlm-roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "mpnet": ["q", "v"],
    "deberta-v2": ["query_proj", "value_proj"],
}


def make_checkpoint(root: Path, model_type: str = "bert", *, seed: int = 0, rank: int = 4, **config: Any) -> None:
    """``root/base`` and ``root/adapter``; both LoRA matrices random, so that neither has a zero gradient."""
    torch.manual_seed(seed)
    base, adapter = root / "base", root / "adapter"
    _tokenizer().save_pretrained(base)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    sizes = AutoConfig.for_model(model_type, **_sizes(model_type) | names | config)
    model = AutoModelForSequenceClassification.from_config(sizes)  # type: ignore[no-untyped-call]  # theirs has no annotations
    model.save_pretrained(base)
    peft_config = LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=8, target_modules=TARGETS[model_type])
    tuned = get_peft_model(model, peft_config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(str(adapter))
    (adapter / "config.json").write_text(json.dumps({"model_type": model_type, **names}))


def make_causal_lm(root: Path, *, rank: int = 4, **config: Any) -> None:
    """``root/base`` and ``root/adapter`` of a language model of SmolLM2's class, LoRA on two projections."""
    model = _llama(**config)
    lm_tokenizer().save_pretrained(root / "base")
    model.save_pretrained(root / "base")
    _tuned(model, rank, 0.1).save_pretrained(str(root / "adapter"))


def causal_lm(*, rank: int, init_std: float) -> PeftModel:
    """The same in memory, its LoRA matrices random."""
    return _tuned(_llama(), rank, init_std)


def _llama(**config: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(WORDS) + 3,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | config)))


def _tuned(model: LlamaForCausalLM, rank: int, init_std: float) -> PeftModel:
    lora = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    tuned: PeftModel = get_peft_model(model, lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=init_std)
    return tuned


def make_completions(count: int, *, seed: int = 0, start: int = 0) -> list[dict[str, Any]]:
    texts = make_rows(2 * count, seed=seed)
    return [
        {"id": f"r{start + place}", "prompt": texts[2 * place]["text"], "completion": texts[2 * place + 1]["text"]}
        for place in range(count)
    ]


def lm_tokenizer() -> PreTrainedTokenizerFast:
    """Puts a token before a text and one behind it, and has none to pad with."""
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs has no annotations
        tokenizer_object=tokenizer, unk_token="[UNK]", bos_token="<s>", eos_token="</s>"
    )


def make_rows(count: int, *, seed: int = 0, start: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(count):
        length = int(torch.randint(2, 12, (1,), generator=generator))
        picks = torch.randint(0, len(WORDS), (length,), generator=generator)
        label = LABELS[int(torch.randint(0, len(LABELS), (1,), generator=generator))]
        rows.append({"id": f"r{start + index}", "text": " ".join(WORDS[int(p)] for p in picks), "label": label})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs has no annotations
        tokenizer_object=tokenizer,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def _sizes(model_type: str) -> dict[str, Any]:
    sizes: dict[str, Any] = {"vocab_size": len(WORDS) + 5, "num_labels": len(LABELS), "pad_token_id": 0}
    if model_type == "distilbert":
        return sizes | {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 48, "max_position_embeddings": 144}
    sizes |= {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 48}
    if model_type == "electra":
        sizes |= {"embedding_size": 32}
    return sizes | {"max_position_embeddings": 144}
