"""Checkpoints in several files: inspected by their headers, hashed whole, and refused where the index lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ascribe.errors import InvalidInput
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.spec import ModelSpec, ParametersSpec, Task
from tests.support.families import make_family
from tests.support.tiny import make_checkpoint
from worker.models import load_model

CLASSIFIER = ModelSpec(base="base", adapter="adapter", max_length=64)
LANGUAGE_MODEL = CLASSIFIER.model_copy(update={"task": "causal-lm"})
INDEX = "model.safetensors.index.json"


def _shard(root: Path, task: Task) -> None:
    kind: Any = AutoModelForCausalLM if task == "causal-lm" else AutoModelForSequenceClassification
    model = kind.from_pretrained(root / "base")
    (root / "base" / "model.safetensors").unlink()
    model.save_pretrained(root / "base", max_shard_size="6KB")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_family(tmp_path, "llama")
    _shard(tmp_path, "causal-lm")
    return tmp_path


def _inspect(root: Path, model: ModelSpec = LANGUAGE_MODEL) -> Checkpoint:
    return inspect_checkpoint(root, model, ParametersSpec())


@pytest.mark.parametrize("model", [CLASSIFIER, LANGUAGE_MODEL])
def test_shards_are_the_same_model(tmp_path: Path, model: ModelSpec) -> None:
    make_checkpoint(tmp_path) if model is CLASSIFIER else make_family(tmp_path, "llama")
    whole = _inspect(tmp_path, model)
    ids = torch.tensor([[5, 6, 7]])
    loaded = load_model(whole, model, attention="sdpa", device="cpu")
    before = loaded.model(input_ids=ids).logits
    _shard(tmp_path, model.task)
    shards = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    assert len(shards) > 2
    sharded = _inspect(tmp_path, model)
    assert (sharded.blocks, sharded.num_labels) == (whole.blocks, whole.num_labels)
    assert {*shards, INDEX, "config.json", "tokenizer.json"} <= set(sharded.base_files)
    after = load_model(sharded, model, attention="sdpa", device="cpu").model(input_ids=ids).logits
    torch.testing.assert_close(after, before)  # weights that lie elsewhere in memory may round otherwise


def test_every_shard_is_hashed(root: Path) -> None:
    before = _inspect(root).base_sha256()
    last = sorted((root / "base").glob("*.safetensors"))[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert _inspect(root).base_sha256() != before


Index = dict[str, Any]


def _lose_metadata(index: Index) -> None:
    del index["metadata"]


def _lose_map(index: Index) -> None:
    index["weight_map"] = []


def _lead_outside(index: Index) -> None:
    index["weight_map"]["model.norm.weight"] = "../outside.safetensors"


def _lead_to_code(index: Index) -> None:
    index["weight_map"]["model.norm.weight"] = "model.pt"


def _name_a_number(index: Index) -> None:
    index["weight_map"]["model.norm.weight"] = 3


def _forget_a_tensor(index: Index) -> None:
    del index["weight_map"]["model.norm.weight"]


def _promise_a_tensor(index: Index) -> None:
    index["weight_map"]["s3cret"] = index["weight_map"]["model.norm.weight"]


@pytest.mark.parametrize(
    "change",
    [
        _lose_metadata,
        _lose_map,
        _lead_outside,
        _lead_to_code,
        _name_a_number,
        _forget_a_tensor,
        _promise_a_tensor,
    ],
)
def test_an_index_that_lies(root: Path, change: Callable[[Index], None]) -> None:
    path = root / "base" / INDEX
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(InvalidInput) as raised:
        _inspect(root)
    (problem,) = raised.value.errors
    assert (problem.code, problem.pointer) == ("malformed_file", "/model/base")
    assert INDEX in problem.message
    assert "s3cret" not in problem.message
    assert "outside" not in problem.message


def test_a_shard_that_is_truncated_or_missing(root: Path) -> None:
    shards = sorted((root / "base").glob("*.safetensors"))
    shards[1].write_bytes(shards[1].read_bytes()[:-3])
    with pytest.raises(InvalidInput, match=f"{shards[1].name}: the file is truncated") as raised:
        _inspect(root)
    assert raised.value.errors[0].code == "malformed_file"
    shards[1].unlink()
    with pytest.raises(InvalidInput, match=f"lacks 1 of the {len(shards)} shards") as raised:
        _inspect(root)
    assert raised.value.errors[0].code == "missing_file"
