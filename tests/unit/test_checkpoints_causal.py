"""Checkpoints of language models: every family against autograd and peft, and what is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ascribe.errors import InvalidInput
from ascribe.sources.base_model import MODEL_TYPES
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.row_checks import CheckedRow
from ascribe.sources.rows import Rows
from ascribe.spec import ModelSpec, ParametersSpec
from tests.support.families import TARGETS, make_family
from tests.support.tiny import WORDS, lm_tokenizer
from worker.data import encode, make_batches
from worker.gradients.per_example import PerExampleGradients, plain_name
from worker.models import LoadedModel, load_model

MODEL = ModelSpec(task="causal-lm", base="base", adapter="adapter", dtype="float64", max_length=64)
BARE = MODEL.model_copy(update={"adapter": None})
ADAPTER = ParametersSpec()
ROWS = Rows.of(
    CheckedRow(f"r{place}", " ".join(WORDS[:place]), " ".join(WORDS[place : 2 * place + 1]), None) for place in range(5)
)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _problem(root: Path, model: ModelSpec = MODEL, parameters: ParametersSpec = ADAPTER) -> tuple[str, str, str]:
    with pytest.raises(InvalidInput) as raised:
        inspect_checkpoint(root, model, parameters)
    problem = raised.value.errors[0]
    return problem.code, problem.pointer, problem.message


def _load(checkpoint: Checkpoint, model: ModelSpec = MODEL) -> LoadedModel:
    return load_model(checkpoint, model, attention="sdpa", device="cpu")


def _check_against_autograd(checkpoint: Checkpoint, loaded: LoadedModel, reference: nn.Module) -> None:
    """Ours by batch on ``loaded``, and autograd's on ``reference``, each row by itself, without padding."""
    gradients = PerExampleGradients(loaded.model, checkpoint.blocks)
    tokenizer = lm_tokenizer()  # transformers loads some families' as a kind that our few words do not fit
    tokenizer.pad_token = tokenizer.eos_token
    named = {plain_name(name): parameter for name, parameter in reference.named_parameters()}
    chosen = [named[block.name].requires_grad_(True) for block in checkpoint.blocks]
    for batch in make_batches(ROWS, 0, len(ROWS), tokenizer, max_length=64, token_budget=60, device="cpu"):
        loss_N, grad_NP = gradients(batch)
        for place, row in enumerate(batch.positions):
            assert ROWS.completions is not None
            (ids,), (span,) = encode([ROWS.texts[row]], [ROWS.completions[row]], tokenizer, 64)
            logits_TC: Tensor = reference(input_ids=torch.tensor([ids])).logits[0]
            said = torch.tensor(ids)[span.start : span.stop]
            loss = nn.functional.cross_entropy(logits_TC[span.start - 1 : span.stop - 1], said)
            parts = torch.autograd.grad(loss, chosen)
            expected_P = torch.cat([(g.T if g.ndim == 2 and len(g) > g.shape[1] else g).flatten() for g in parts])
            torch.testing.assert_close(loss_N[place], loss.float(), rtol=1e-5, atol=1e-6)
            assert (grad_NP[place] - expected_P).norm() <= 1e-5 * expected_P.norm()
            assert expected_P.norm() > 1e-4


def _peft(root: Path) -> PeftModel:
    """The same files as peft alone loads them."""
    base = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(base, str(root / "adapter"), autocast_adapter_dtype=False).double().eval()


def test_every_family_that_is_named_is_tried() -> None:
    assert set(TARGETS) == MODEL_TYPES["causal-lm"]


@pytest.mark.parametrize("model_type", TARGETS)
def test_a_family_has_the_gradients_that_peft_and_autograd_give(tmp_path: Path, model_type: str) -> None:
    make_family(tmp_path, model_type)
    checkpoint = inspect_checkpoint(tmp_path, MODEL, ADAPTER)
    assert (checkpoint.num_labels, checkpoint.label_names) == (len(WORDS) + 3, None)
    loaded = _load(checkpoint)
    _check_against_autograd(checkpoint, loaded, _peft(tmp_path))

    assert checkpoint.parameters == sum(p.numel() for n, p in loaded.model.named_parameters() if "lora_" in n)


@pytest.mark.parametrize("rank_pattern", [{}, {"v_proj": 1}])
def test_rslora_scales_as_peft_does(tmp_path: Path, rank_pattern: dict[str, int]) -> None:
    make_family(tmp_path, "llama", use_rslora=True, r=3, rank_pattern=rank_pattern, target_modules=["q_proj", "v_proj"])
    checkpoint = inspect_checkpoint(tmp_path, MODEL, ADAPTER)
    loaded, reference = _load(checkpoint), _peft(tmp_path)
    _check_against_autograd(checkpoint, loaded, reference)
    ids = torch.tensor([[3, 4, 5, 6]])
    assert torch.equal(loaded.model(input_ids=ids).logits, reference(input_ids=ids).logits)
    _edit(tmp_path / "adapter" / "adapter_config.json", use_rslora=False)
    plain = _load(inspect_checkpoint(tmp_path, MODEL, ADAPTER))
    assert not torch.allclose(plain.model(input_ids=ids).logits, reference(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "without use_dora, or merge"),
        ({"lora_bias": True}, "lora_bias"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"s3cret": 1}, "this version does not know"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"init_lora_weights": "corda"}, "init_lora_weights"),
    ],
)
def test_adapters_that_compute_something_else(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    make_family(tmp_path, "llama")
    _edit(tmp_path / "adapter" / "adapter_config.json", **change)
    code, pointer, message = _problem(tmp_path)
    assert (code, pointer) == ("unsupported_adapter", "/model/adapter")
    assert said in message
    assert "s3cret" not in message


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal"])
def test_how_an_adapter_began_does_not_matter_where_the_base_stayed(tmp_path: Path, start: Any) -> None:
    make_family(tmp_path, "llama")
    _edit(tmp_path / "adapter" / "adapter_config.json", init_lora_weights=start)
    inspect_checkpoint(tmp_path, MODEL, ADAPTER)


def test_what_peft_writes_for_dora_is_refused_by_its_tensors_too(tmp_path: Path) -> None:
    make_family(tmp_path, "llama", use_dora=True)
    _edit(tmp_path / "adapter" / "adapter_config.json", use_dora=False)
    code, _, message = _problem(tmp_path)
    assert code == "unsupported_adapter"
    assert "more than LoRA matrices" in message


@pytest.mark.parametrize("tied", [True, False])
def test_lora_on_the_output_embeddings(tmp_path: Path, tied: bool) -> None:
    make_family(tmp_path, "llama", tied=tied, target_modules=["q_proj", "lm_head"])
    code, pointer, message = _problem(tmp_path)
    assert (code, pointer) == ("unsupported_adapter", "/model/adapter")
    assert "output embeddings" in message


def test_lora_on_the_input_embeddings(tmp_path: Path) -> None:
    make_family(tmp_path, "llama", target_modules=["q_proj", "embed_tokens"])
    code, _, message = _problem(tmp_path)
    assert code == "unsupported_adapter"
    assert "LoRA matrices of Linear layers" in message


def test_embeddings_saved_with_an_adapter_are_loaded_and_not_selected(tmp_path: Path) -> None:
    make_family(tmp_path, "llama", tied=False, modules_to_save=["lm_head"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    head = "base_model.model.lm_head.weight"
    save_file(tensors | {head: tensors[head] * 2}, path)
    checkpoint = inspect_checkpoint(tmp_path, MODEL, ADAPTER)
    assert not any("lm_head" in name for name in checkpoint.block_names)
    _check_against_autograd(checkpoint, _load(checkpoint), _peft(tmp_path))
    code, pointer, _ = _problem(tmp_path, parameters=ParametersSpec(select="adapter_and_head"))
    assert (code, pointer) == ("unsupported_parameter", "/parameters/select")
    save_file(tensors | {head: torch.zeros(40, 16)}, path)
    assert _problem(tmp_path)[:2] == ("adapter_does_not_fit", "/model/adapter")


@pytest.mark.parametrize("modules_to_save", [["embed_tokens"], None])
@pytest.mark.parametrize("tied", [True, False])
def test_input_embeddings_saved_with_an_adapter(tmp_path: Path, tied: bool, modules_to_save: list[str] | None) -> None:
    make_family(tmp_path, "llama", tied=tied, modules_to_save=modules_to_save)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    table = torch.randn(len(WORDS) + 3, 16, generator=torch.Generator().manual_seed(1))
    save_file(load_file(path) | {"base_model.model.model.embed_tokens.weight": table}, path)
    checkpoint = inspect_checkpoint(tmp_path, MODEL, ADAPTER)
    loaded = _load(checkpoint)
    assert torch.equal(loaded.model.get_input_embeddings().weight, table.double())  # type: ignore[operator]
    _check_against_autograd(checkpoint, loaded, _peft(tmp_path))


def _modules(*patterns: str) -> ParametersSpec:
    return ParametersSpec(select="modules", modules=patterns)


LAYER = "model.layers.0"


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox", "phi", "qwen2"])
def test_dense_layers_of_a_base_alone(tmp_path: Path, model_type: str) -> None:
    make_family(tmp_path, model_type)
    checkpoint = inspect_checkpoint(tmp_path, BARE, _modules("*.layers.1.*"))
    kinds = {name.rpartition(".")[0].rpartition(".")[2] for name in checkpoint.block_names}
    assert len(kinds) >= 4
    assert all(".layers.1." in name and "norm" not in name for name in checkpoint.block_names)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float64)
    _check_against_autograd(checkpoint, _load(checkpoint, BARE), reference)


def test_every_linear_layer_but_the_output_embeddings(tmp_path: Path) -> None:
    make_family(tmp_path, "llama", tied=False)
    checkpoint = inspect_checkpoint(tmp_path, BARE, _modules("*"))
    assert len(checkpoint.blocks) == 2 * 7
    assert not any("lm_head" in name or "embed" in name or "norm" in name for name in checkpoint.block_names)


@pytest.mark.parametrize(
    ("tied", "pattern", "code", "said"),
    [
        (True, "lm_head", "tied_weights", "tied"),
        (True, "lm_head.weight", "tied_weights", "tied"),
        (False, "lm_head", "unsupported_parameter", "output embeddings"),
        (True, "model.embed_tokens", "no_such_module", "embeddings or norms"),
        (True, "*norm*", "no_such_module", "embeddings or norms"),
        (True, "s3cret.*", "no_such_module", f"14 Linear layers, such as {LAYER}.mlp.down_proj"),
    ],
)
def test_what_cannot_be_selected(tmp_path: Path, tied: bool, pattern: str, code: str, said: str) -> None:
    make_family(tmp_path, "llama", tied=tied)
    found, pointer, message = _problem(tmp_path, BARE, _modules(f"{LAYER}.self_attn.q_proj", pattern))
    assert (found, pointer) == (code, "/parameters/modules/1")
    assert said in message
    assert "s3cret" not in message
    assert len(message) < 1200


def test_layers_that_are_no_linear_ones(tmp_path: Path) -> None:
    make_family(tmp_path, "gpt2")
    code, pointer, message = _problem(tmp_path, BARE, _modules("*"))
    assert (code, pointer) == ("unsupported_parameter", "/parameters/select")
    assert "Conv1D" in message


def test_a_quantised_base_by_its_configuration_or_its_tensors(tmp_path: Path) -> None:
    make_family(tmp_path, "llama")
    config, weights = tmp_path / "base" / "config.json", tmp_path / "base" / "model.safetensors"
    text = config.read_text()
    _edit(config, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    for model, parameters in ((MODEL, ADAPTER), (BARE, _modules("*"))):
        code, pointer, message = _problem(tmp_path, model, parameters)
        assert (code, pointer) == ("quantised_base", "/model/base")
        assert "full-precision checkpoint" in message
    config.write_text(text)
    name = f"{LAYER}.self_attn.q_proj.weight"
    tensors = load_file(weights)
    for dtype in (torch.uint8, torch.int8, torch.float8_e4m3fn, torch.int32):
        save_file(tensors | {name: torch.zeros(16, 16, dtype=dtype)}, weights)
        assert _problem(tmp_path)[:2] == ("quantised_base", "/model/base")
    save_file(tensors | {"position_ids": torch.arange(8)[None]}, weights)
    inspect_checkpoint(tmp_path, MODEL, ADAPTER)


def test_a_base_of_the_other_task(tmp_path: Path) -> None:
    make_family(tmp_path, "llama")
    other = ModelSpec(base="base", adapter="adapter")
    assert _problem(tmp_path, other)[:2] == ("unsupported_model", "/model/base")


@pytest.mark.parametrize(("model_type", "positions"), [("llama", 64), ("gpt2", 64)])
def test_rows_longer_than_the_model_has_positions_for(tmp_path: Path, model_type: str, positions: int) -> None:
    make_family(tmp_path, model_type)
    longer = MODEL.model_copy(update={"max_length": positions + 1})
    assert _problem(tmp_path, longer)[:2] == ("too_long_for_model", "/model/max_length")


def test_a_tokenizer_with_neither_padding_nor_end_token(tmp_path: Path) -> None:
    make_family(tmp_path, "llama")
    checkpoint = inspect_checkpoint(tmp_path, MODEL, ADAPTER)
    assert _load(checkpoint).tokenizer.pad_token == "</s>"
    path = tmp_path / "base" / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))
    with pytest.raises(InvalidInput) as raised:
        _load(checkpoint)
    assert raised.value.errors[0].code == "no_pad_token"


def test_a_base_that_lacks_its_output_embeddings(tmp_path: Path) -> None:
    make_family(tmp_path, "llama", tied=False)
    path = tmp_path / "base" / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if name != "lm_head.weight"}, path)
    checkpoint = inspect_checkpoint(tmp_path, MODEL, ADAPTER)
    with pytest.raises(InvalidInput) as raised:
        _load(checkpoint)
    assert raised.value.errors[0].code == "incomplete_checkpoint"


def test_a_configuration_that_names_another_file_of_weights(tmp_path: Path) -> None:
    make_family(tmp_path, "llama")
    _edit(tmp_path / "base" / "config.json", transformers_weights="other.safetensors")
    assert _problem(tmp_path)[:2] == ("unsupported_model", "/model/base")
