"""A base that is a GGUF file: the model it was made of, behind a switch; files that lie are refused before loading."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from ascribe.errors import InvalidInput, UnsupportedModel
from ascribe.settings import ServiceSettings, Settings, WorkerSettings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.gguf_header import BadGguf, read_gguf_header
from ascribe.spec import JobSpec, ModelSpec, ParametersSpec
from service.jobs.checks import check
from tests.support.gguf_files import bpe, round_matrices, tiny_llama, write_gguf
from tests.support.tiny import lm_tokenizer
from worker.inputs import load_inputs
from worker.models import load_model

MODEL = ModelSpec(task="causal-lm", base="base", adapter="adapter", max_length=64)
ADAPTER = ParametersSpec()
FILE = "base/model.gguf"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe()


@pytest.fixture(scope="module")
def llama(tokenizer: Tokenizer) -> LlamaForCausalLM:
    return tiny_llama(tokenizer.get_vocab_size())


@pytest.fixture
def root(tmp_path: Path, llama: LlamaForCausalLM, tokenizer: Tokenizer) -> Path:
    (tmp_path / "base").mkdir()
    write_gguf(tmp_path / FILE, llama, tokenizer)
    _make_adapter(tmp_path, tokenizer)
    return tmp_path


def _make_adapter(root: Path, tokenizer: Tokenizer) -> None:
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "k_proj", "down_proj"])
    tuned = get_peft_model(tiny_llama(tokenizer.get_vocab_size()), lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned.save_pretrained(str(root / "adapter"))


def _inspect(root: Path) -> Checkpoint:
    return inspect_checkpoint(root, MODEL, ADAPTER, allow_gguf=True)


def _problem(root: Path, model: ModelSpec = MODEL, *, allowed: bool = True, **selected: Any) -> tuple[str, str, str]:
    with pytest.raises(InvalidInput) as raised:
        inspect_checkpoint(root, model, ParametersSpec(**selected), allow_gguf=allowed)
    problem = raised.value.errors[0]
    return problem.code, problem.pointer, problem.message


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_it_is_the_model_that_the_file_was_made_of(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    (tmp_path / "base").mkdir()
    llama = tiny_llama(tokenizer.get_vocab_size())
    write_gguf(tmp_path / FILE, llama, tokenizer, kind=kind)
    _make_adapter(tmp_path, tokenizer)
    round_matrices(llama, kind)
    checkpoint = _inspect(tmp_path)
    assert (checkpoint.num_labels, checkpoint.gguf) == (tokenizer.get_vocab_size(), "model.gguf")
    assert len(checkpoint.blocks) == 2 * 3 * 2
    loaded = load_model(checkpoint, MODEL, attention="sdpa", device="cpu")
    ids = loaded.tokenizer("the dog ran how do i undo")["input_ids"]
    assert ids == tokenizer.encode("the dog ran how do i undo").ids
    batch = torch.tensor([ids])
    expected = llama(input_ids=batch).logits
    assert isinstance(loaded.model, PeftModel)
    assert not torch.allclose(loaded.model(input_ids=batch).logits, expected, atol=1e-3)
    with loaded.model.disable_adapter():
        torch.testing.assert_close(loaded.model(input_ids=batch).logits, expected)
    assert type(loaded.model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")) is torch.nn.Linear


def test_it_is_switched_on_by_the_operator(root: Path) -> None:
    assert Settings().allow_gguf is False
    code, pointer, message = _problem(root, allowed=False)
    assert (code, pointer) == ("gguf_not_allowed", "/model/base")
    assert "ASCRIBE_ALLOW_GGUF" in message
    assert "convert" in message


def test_service_and_worker_have_the_switch(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [{"prompt": "the dog", "completion": "ran on"}, {"prompt": "the cat", "completion": "sat"}]
    source = {"source": {"kind": "inline", "rows": rows}}
    methods = {"curvature": {"kind": "none"}, "solver": {"kind": "identity"}}
    spec = JobSpec.model_validate({"model": MODEL.model_dump(), "train": source, "validation": source} | methods)
    places: dict[str, Any] = {"data_root": root, "uploads_dir": tmp_path_factory.mktemp("uploads")}
    on = ServiceSettings(allow_gguf=True, **places)
    assert check(spec, on, read_files=True).checkpoint.gguf == "model.gguf"
    assert load_inputs(spec, WorkerSettings(allow_gguf=True, **places)).checkpoint.gguf == "model.gguf"
    with pytest.raises(UnsupportedModel, match="ASCRIBE_ALLOW_GGUF"):
        check(spec, ServiceSettings(**places), read_files=True)
    with pytest.raises(UnsupportedModel, match="ASCRIBE_ALLOW_GGUF"):
        load_inputs(spec, WorkerSettings(**places))


def test_safetensors_beside_it_are_what_is_loaded(root: Path, llama: LlamaForCausalLM) -> None:
    llama.save_pretrained(root / "base")
    assert inspect_checkpoint(root, MODEL, ADAPTER).gguf is None


def test_its_content_is_hashed(root: Path) -> None:
    before = _inspect(root).base_sha256()
    content = bytearray((root / FILE).read_bytes())
    content[-1] ^= 1
    (root / FILE).write_bytes(content)
    assert _inspect(root).base_sha256() != before


def test_only_an_adapter_is_differentiated(root: Path) -> None:
    bare = MODEL.model_copy(update={"adapter": None})
    code, pointer, message = _problem(root, bare, select="modules", modules=("*.q_proj",))
    assert (code, pointer) == ("unsupported_parameter", "/parameters/select")
    assert "LoRA" in message


def test_two_files(root: Path) -> None:
    shutil.copy(root / FILE, root / "base" / "other.gguf")
    assert _problem(root)[:2] == ("several_files", "/model/base")


def test_limits_and_tasks_hold_for_it(root: Path) -> None:
    longer = MODEL.model_copy(update={"max_length": 97})
    assert _problem(root, longer)[:2] == ("too_long_for_model", "/model/max_length")
    classifier = MODEL.model_copy(update={"task": "sequence-classification"})
    assert _problem(root, classifier)[:2] == ("unsupported_model", "/model/base")


def test_an_adapter_that_does_not_fit(root: Path, llama: LlamaForCausalLM) -> None:
    config = llama.config.__class__(**{**llama.config.to_dict(), "hidden_size": 64, "head_dim": 16})
    tuned = get_peft_model(LlamaForCausalLM(config), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    tuned.save_pretrained(str(root / "adapter"))
    assert _problem(root)[:2] == ("adapter_does_not_fit", "/model/adapter")


@pytest.mark.parametrize("setting", ["llama.expert_count", "llama.attention.sliding_window", "llama.rope.scaling.x"])
def test_settings_that_would_be_passed_over(
    root: Path, llama: LlamaForCausalLM, tokenizer: Tokenizer, setting: str
) -> None:
    write_gguf(root / FILE, llama, tokenizer, settings={setting: 4})
    assert _problem(root)[:2] == ("unsupported_model", "/model/base")


@pytest.mark.parametrize("setting", ["llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens"])
def test_settings_that_would_be_made_up(
    root: Path, llama: LlamaForCausalLM, tokenizer: Tokenizer, setting: str
) -> None:
    content = (root / FILE).read_bytes()
    (root / FILE).write_bytes(content.replace(setting.encode(), setting.replace(".", "_").encode()))
    assert _problem(root)[:2] == ("malformed_file", "/model/base")


def test_a_file_that_transformers_stumbles_over(root: Path, llama: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    write_gguf(root / FILE, llama, tokenizer, settings={"tokenizer.ggml.padding_token_id": 1 << 20})
    with pytest.raises(InvalidInput) as raised:
        load_model(_inspect(root), MODEL, attention="sdpa", device="cpu")
    assert (raised.value.errors[0].code, raised.value.errors[0].pointer) == ("malformed_file", "/model/base")


def test_a_tokenizer_beside_it_is_the_models(root: Path) -> None:
    lm_tokenizer().save_pretrained(root / "base")
    checkpoint = _inspect(root)
    assert "tokenizer.json" in checkpoint.base_files
    loaded = load_model(checkpoint, MODEL, attention="sdpa", device="cpu")
    assert loaded.tokenizer("the dog")["input_ids"] == lm_tokenizer()("the dog")["input_ids"]


@pytest.mark.parametrize("tensor", ["rope_freqs.weight", "blk.0.s3cret.weight"])
def test_tensors_that_would_be_passed_over(
    root: Path, llama: LlamaForCausalLM, tokenizer: Tokenizer, tensor: str
) -> None:
    write_gguf(root / FILE, llama, tokenizer, tensors={tensor: np.ones(8, np.float32)})
    code, pointer, message = _problem(root)
    assert (code, pointer) == ("unsupported_model", "/model/base")
    assert "s3cret" not in message


def test_every_cut_of_a_file_is_noticed(root: Path) -> None:
    content = (root / FILE).read_bytes()
    path = root / "cut.gguf"
    header = len(content) - 4 * sum(p.numel() for p in tiny_llama(300).parameters())
    cuts = [*range(0, 600), *range(600, header, 97), len(content) - 1]
    for cut in cuts:
        path.write_bytes(content[:cut])
        with pytest.raises(BadGguf):
            read_gguf_header(path)
    (root / FILE).write_bytes(content[:-1])
    code, pointer, message = _problem(root)
    assert (code, pointer) == ("malformed_file", "/model/base")
    assert "truncated" in message


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _file(settings: bytes = b"", tensors: bytes = b"", *, kv: int = 0, count: int = 0, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, count, kv) + settings + tensors
    return head + bytes(-len(head) % 32)


def _tensor(shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return _string("a") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


HUGE = 1 << 60


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGML" + bytes(60),
        _file(version=1),
        _file(version=3 << 24),
        _file(kv=HUGE),
        _file(count=HUGE),
        _file(_string("a") + struct.pack("<IIQ", 9, 0, HUGE), kv=1),
        _file(_string("a") + struct.pack("<IIQ", 9, 8, HUGE), kv=1),
        _file(_string("a") + struct.pack("<IIQ", 9, 9, 1), kv=1),
        _file(_string("a") + struct.pack("<IQ", 8, HUGE), kv=1),
        _file(_string("a") + struct.pack("<I", 77), kv=1),
        _file(2 * (_string("a") + struct.pack("<II", 4, 1)), kv=2),
        _file(_string("a" * 300) + struct.pack("<II", 4, 1), kv=1),
        _file(struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 1), kv=1),
        _file(_string("general.alignment") + struct.pack("<II", 4, 0), kv=1),
        _file(_string("general.alignment") + struct.pack("<II", 4, 48), kv=1),
        _file(tensors=_tensor((HUGE, 16)), count=1),
        _file(tensors=_tensor((8,), kind=99), count=1) + bytes(32),
        _file(tensors=_tensor((8,), kind=24), count=1) + bytes(32),  # integers
        _file(tensors=_tensor((8,), kind=3), count=1) + bytes(32),  # blocks are of 32
        _file(tensors=_tensor((8,), offset=32), count=1) + bytes(64),
        _file(tensors=_tensor((8,), offset=HUGE), count=1) + bytes(32),
        _file(tensors=_tensor(()), count=1) + bytes(32),
        _file(tensors=_tensor((1,) * 5), count=1) + bytes(32),
        _file(tensors=_tensor((8,)) + _tensor((8,), offset=32), count=2) + bytes(64),
        _file(tensors=_tensor((8,)) + _tensor((8,)), count=2) + bytes(64),
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(BadGguf):
        read_gguf_header(path)
