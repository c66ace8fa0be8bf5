"""Loads a base, and its adapter if it has one, from safetensors that were inspected before, in eval mode.

The adapter's configuration is rebuilt from the few fields we know, never handed to peft as it came.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from ascribe.errors import InvalidInput
from ascribe.sources.adapters import LORA_FIELDS
from ascribe.sources.checkpoints import Adapter, Checkpoint
from ascribe.spec import ModelSpec, Task
from worker.fit import BatchFit

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
PEFT_TASKS: Mapping[Task, str] = {"sequence-classification": "SEQ_CLS", "causal-lm": "CAUSAL_LM"}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """``fit`` is what this process has learned of the batches that fit, for as long as the model stays loaded."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    fit: BatchFit = field(default_factory=BatchFit)


@dataclass(frozen=True, slots=True)
class ModelKey:
    """Two jobs with equal keys can share one loaded model."""

    base_sha256: str
    adapter_sha256: str | None
    dtype: str
    attention: str
    device: str


class ModelCache:
    """Keeps the last model warm: the next job on the same checkpoint starts at once."""

    def __init__(self) -> None:
        self.loaded: ModelSpec | None = None
        """As the job that had it loaded names it."""
        self._key: ModelKey | None = None
        self._model: LoadedModel | None = None

    def get(self, key: ModelKey, checkpoint: Checkpoint, spec: ModelSpec) -> LoadedModel:
        if self._model is None or key != self._key:
            self._model, self._key, self.loaded = None, None, None  # free the old one before the new one is there
            self._model = load_model(checkpoint, spec, attention=key.attention, device=key.device)
            self._key, self.loaded = key, spec
        return self._model

    def fit(self, key: ModelKey) -> BatchFit:
        """What is known of the batches that fit this model: nothing, unless it is the one that is loaded."""
        return BatchFit() if self._model is None or key != self._key else self._model.fit


def load_model(checkpoint: Checkpoint, spec: ModelSpec, *, attention: str, device: str) -> LoadedModel:
    """The model on ``device`` in ``spec.dtype``, eval mode, tokenizer beside. Adapter matrices stay unmerged.

    Raises:
        InvalidInput: the adapter's tensors are not those that the rebuilt adapter has, or a base alone is not whole.
    """
    # A base without a head says that its head is new; the adapter brings the trained one.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs has no annotations
    # Its lines go where all of ours go, and not to a handler of its own as well.
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
    base, loading = _load_base(checkpoint, DTYPES[spec.dtype], attention)
    adapter = checkpoint.adapter
    tensors = {} if adapter is None else load_file(adapter.folder / "adapter_model.safetensors")
    _check_whole(loading, {name.removeprefix("base_model.model.") for name in tensors})
    model: torch.nn.Module = base if adapter is None else _with_adapter(base, adapter, tensors, checkpoint.task)
    model.to(device=device, dtype=DTYPES[spec.dtype])
    model.eval()
    return LoadedModel(model, load_tokenizer(checkpoint))


def _load_base(checkpoint: Checkpoint, dtype: torch.dtype, attention: str) -> tuple[torch.nn.Module, Mapping[str, Any]]:
    """The base, GGUF weights as the dense ones they stand for, and what transformers says of how it went."""
    kind: Any = AutoModelForCausalLM
    options = _gguf(checkpoint)
    if checkpoint.task == "sequence-classification":
        kind, options = AutoModelForSequenceClassification, {"num_labels": checkpoint.num_labels}
    with _reading_gguf(checkpoint):
        base, loading = kind.from_pretrained(
            checkpoint.base,
            **options,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    return base, loading


def _gguf(checkpoint: Checkpoint) -> dict[str, Any]:
    return {} if checkpoint.gguf is None else {"gguf_file": checkpoint.gguf}


@contextmanager
def _reading_gguf(checkpoint: Checkpoint) -> Iterator[None]:
    """The file's header was checked, but not what its settings and arrays hold: transformers stumbles there."""
    try:
        yield
    except (AssertionError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        if checkpoint.gguf is None:
            raise
        message = "the GGUF file cannot be read as a model with its tokenizer: convert it to safetensors"
        raise InvalidInput.at("/model/base", "malformed_file", message) from error


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Raises InvalidInput: it has no token to pad with.

    What a language model's rows are padded with is no matter: it stands behind them, and they see what is before. It is
    its end token where it has one, for tokens added to pad with are often beyond the model's vocabulary.
    """
    # A tokenizer of its own beside a GGUF file is the model's, the one in the file is rebuilt from its vocabulary.
    own = checkpoint.gguf is None or "tokenizer.json" in checkpoint.base_files
    options = {} if own else _gguf(checkpoint)
    with _reading_gguf(checkpoint):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint.base, **options, local_files_only=True, trust_remote_code=False
        )
    if tokenizer.eos_token is not None and checkpoint.task == "causal-lm":
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise InvalidInput.at(
            "/model/base", "no_pad_token", "the tokenizer has no token to pad with: give it one (pad_token)"
        )
    return tokenizer


def _check_whole(loading: Mapping[str, Any], brought: set[str]) -> None:
    """Every weight of the model is the base's or brought by the adapter: transformers makes up those it misses."""
    made_up = set(loading["missing_keys"]) - brought
    if made_up or loading["mismatched_keys"]:
        raise InvalidInput.at(
            "/model/base", "incomplete_checkpoint", "the base lacks weights that its architecture has: save it whole"
        )


def _with_adapter(base: torch.nn.Module, adapter: Adapter, tensors: dict[str, Tensor], task: Task) -> PeftModel:
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for a property under its old name.
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
        # Of merging and converting, which we do not.
        warnings.filterwarnings("ignore", message="Model has .tie_word_embeddings=True.", category=UserWarning)
        model = get_peft_model(base, _lora_config(adapter, task), autocast_adapter_dtype=False)
    _load_adapter(model, tensors)
    return model


def _lora_config(adapter: Adapter, task: Task) -> LoraConfig:
    stored: dict[str, Any] = json.loads((adapter.folder / "adapter_config.json").read_bytes())
    known = {name: stored[name] for name in LORA_FIELDS if stored.get(name) is not None}
    return LoraConfig(task_type=PEFT_TASKS[task], lora_dropout=0.0, bias="none", init_lora_weights=False, **known)


def _load_adapter(model: PeftModel, tensors: dict[str, Tensor]) -> None:
    outcome: Any = set_peft_model_state_dict(model, tensors)
    missing = [name for name in outcome.missing_keys if "lora_" in name]
    if outcome.unexpected_keys or missing:
        raise InvalidInput.at(
            "/model/adapter", "adapter_does_not_fit", "the adapter's tensors are not those its configuration describes"
        )
