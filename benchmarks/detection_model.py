"""MiniLM with LoRA on query and value, fine-tuned on noisy labels by the demo's trainer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from examples.demo import finetune
from examples.demo.corpus import Corpus, Row
from examples.demo.finetune import Batch, Recipe


def fine_tune(base: Path, adapter: Path, corpus: Corpus, labels: Sequence[str], recipe: Recipe) -> dict[str, float]:
    """Write ``adapter``, and ``base`` where it is missing.

    Returns ``accuracy`` on the clean validation rows, the share of their larger class as ``majority``, and
    ``cpu_seconds``.
    """
    started = time.process_time()
    if not base.exists():
        finetune._copy_base(base)
    with finetune._quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _lora_model(base, labels, recipe)
        finetune._train(model, _encode(base, corpus.train, labels, recipe), recipe, Console(quiet=True))
        accuracy = finetune._accuracy(model, _encode(base, corpus.validation, labels, recipe))
        finetune._save(model, adapter)
    first = sum(row.label == labels[0] for row in corpus.validation) / len(corpus.validation)
    return {"accuracy": accuracy, "majority": max(first, 1 - first), "cpu_seconds": time.process_time() - started}


def _lora_model(base: Path, labels: Sequence[str], recipe: Recipe) -> PeftModel:
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        local_files_only=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=["query", "value"],
    )
    return get_peft_model(model, config)


def _encode(base: Path, rows: Sequence[Row], labels: Sequence[str], recipe: Recipe) -> list[Batch]:
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    encoded = tokenizer([row.text for row in rows], truncation=True, max_length=recipe.max_length)
    return [
        {
            "input_ids": torch.tensor(input_ids),
            "attention_mask": torch.ones(len(input_ids), dtype=torch.long),
            "labels": torch.tensor(labels.index(row.label)),
        }
        for row, input_ids in zip(rows, encoded["input_ids"], strict=True)
    ]
