"""Inspecting checkpoints: what is unsafe, unfit or untrained is refused from headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ascribe.errors import InvalidInput, UnsafeCheckpoint, UnsupportedModel
from ascribe.sources.checkpoints import inspect_checkpoint
from ascribe.sources.safetensors_header import BadSafetensors, read_header
from ascribe.spec import ModelSpec, ParametersSpec
from tests.support.tiny import LABELS, make_checkpoint

MODEL = ModelSpec(base="base", adapter="adapter")
ADAPTER = ParametersSpec()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_checkpoint(tmp_path)
    return tmp_path


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _code(root: Path, model: ModelSpec = MODEL) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as raised:
        inspect_checkpoint(root, model, ADAPTER)
    return raised.value.errors[0].code, raised.value.errors[0].pointer


def test_blocks_labels_and_head(root: Path) -> None:
    adapter = inspect_checkpoint(root, MODEL, ADAPTER)
    with_head = inspect_checkpoint(root, MODEL, ParametersSpec(select="adapter_and_head"))
    assert adapter.label_names == LABELS
    assert len(adapter.blocks) == 8
    assert {(block.rank, block.long_side) for block in adapter.blocks} == {(4, 32)}
    head = {block.name: (block.rank, block.long_side) for block in with_head.blocks if "classifier" in block.name}
    assert head == {"classifier.weight": (3, 32), "classifier.bias": (1, 3)}
    assert with_head.parameters == 8 * 4 * 32 + 3 * 32 + 3


def test_hashes_follow_the_content(root: Path) -> None:
    checkpoint = inspect_checkpoint(root, MODEL, ADAPTER)
    before = checkpoint.base_sha256(), checkpoint.adapter_sha256()
    _edit(root / "adapter" / "adapter_config.json", lora_alpha=9)
    after = inspect_checkpoint(root, MODEL, ADAPTER)
    assert after.base_sha256() == before[0]
    assert after.adapter_sha256() != before[1]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter.pt", "x.pkl", "modeling.py", "W.PTH"])
@pytest.mark.parametrize("folder", ["base", "adapter"])
def test_files_that_can_run_code_are_refused(root: Path, folder: str, name: str) -> None:
    (root / folder / name).touch()
    with pytest.raises(UnsafeCheckpoint):
        inspect_checkpoint(root, MODEL, ADAPTER)


@pytest.mark.parametrize("change", [{"auto_map": {}}, {"_attn_implementation_internal": "x"}])
def test_configurations_that_ask_for_code_are_refused(root: Path, change: dict[str, Any]) -> None:
    _edit(root / "base" / "config.json", **change)
    assert _code(root) == ("unsafe_checkpoint", "/model/base")


def test_unknown_architecture(root: Path) -> None:
    _edit(root / "base" / "config.json", model_type="mamba")
    assert _code(root) == ("unsupported_model", "/model/base")


@pytest.mark.parametrize("change", [{"use_dora": True}, {"peft_type": "IA3"}, {"bias": "all"}])
def test_adapters_we_do_not_differentiate(root: Path, change: dict[str, Any]) -> None:
    _edit(root / "adapter" / "adapter_config.json", **change)
    with pytest.raises(UnsupportedModel):
        inspect_checkpoint(root, MODEL, ADAPTER)


def test_an_adapter_of_another_base_does_not_fit(root: Path) -> None:
    path = root / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)
    save_file(tensors | {name: torch.zeros(4, 48)}, path)
    assert _code(root) == ("adapter_does_not_fit", "/model/adapter")


def test_a_model_without_a_trained_head(root: Path) -> None:
    for path in (root / "adapter" / "adapter_model.safetensors", root / "base" / "model.safetensors"):
        save_file({name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}, path)
    assert _code(root) == ("no_trained_head", "/model/adapter")


BARE = ModelSpec(base="base")


def _modules(*patterns: str) -> ParametersSpec:
    return ParametersSpec(select="modules", modules=patterns)


LAYER = "bert.encoder.layer"
MATRICES = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
HEAD = {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("classifier",), HEAD),
        (("classifier.*", "bert.pooler"), HEAD | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}),
        ((f"{LAYER}.1.attention*.weight",), {f"{LAYER}.1.{matrix}.weight" for matrix in MATRICES}),
        (
            ("*.query", "*.query.weight"),
            {f"{LAYER}.{i}.{MATRICES[0]}.{kind}" for i in (0, 1) for kind in ("weight", "bias")},
        ),
    ],
)
def test_modules_of_a_base_alone(root: Path, patterns: tuple[str, ...], names: set[str]) -> None:
    checkpoint = inspect_checkpoint(root, BARE, _modules(*patterns))
    assert set(checkpoint.block_names) == names
    assert list(checkpoint.block_names) == sorted(names)
    assert checkpoint.adapter is None
    assert checkpoint.adapter_sha256() is None
    assert checkpoint.num_labels == len(LABELS)


def test_dense_blocks_have_their_short_side_first(root: Path) -> None:
    checkpoint = inspect_checkpoint(
        root, BARE, _modules("bert.encoder.layer.0.output", "*.0.intermediate", "classifier")
    )
    shapes = {block.name: (block.rank, block.long_side) for block in checkpoint.blocks}
    layer = "bert.encoder.layer.0"
    assert shapes == {
        "classifier.bias": (1, 3),
        "classifier.weight": (3, 32),
        f"{layer}.intermediate.dense.bias": (1, 48),
        f"{layer}.intermediate.dense.weight": (32, 48),
        f"{layer}.output.dense.bias": (1, 32),
        f"{layer}.output.dense.weight": (32, 48),
    }


@pytest.mark.parametrize(
    "pattern", ["s3cret", "*.word_embeddings", "bert.embeddings.LayerNorm", "*.LayerNorm.weight", ""]
)
def test_a_pattern_that_names_no_linear_layer_tells_what_there_is(root: Path, pattern: str) -> None:
    model = ParametersSpec.model_construct(select="modules", modules=("classifier", pattern))
    with pytest.raises(InvalidInput) as raised:
        inspect_checkpoint(root, BARE, model)
    (problem,) = raised.value.errors
    assert (problem.code, problem.pointer) == ("no_such_module", "/parameters/modules/1")
    assert "bert.encoder.layer.0.attention.self.query" in problem.message or "classifier" in problem.message
    assert "s3cret" not in str(raised.value) + problem.message


def test_a_head_with_one_output_is_none_of_a_classifier(root: Path) -> None:
    for path in (root / "adapter" / "adapter_model.safetensors", root / "base" / "model.safetensors"):
        tensors = load_file(path)
        save_file({name: tensor[:1] if "classifier" in name else tensor for name, tensor in tensors.items()}, path)
    assert _code(root) == ("one_label", "/model/adapter")


def test_a_base_alone_without_a_head(root: Path) -> None:
    path = root / "base" / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}, path)
    with pytest.raises(InvalidInput) as raised:
        inspect_checkpoint(root, BARE, _modules("bert.encoder.layer.1"))
    assert (raised.value.errors[0].code, raised.value.errors[0].pointer) == ("no_trained_head", "/model/base")


@pytest.mark.parametrize(
    ("path", "code"), [("../base", "path_outside_root"), ("link", "path_outside_root"), ("nowhere", "not_found")]
)
def test_paths_stay_below_the_root(root: Path, tmp_path_factory: pytest.TempPathFactory, path: str, code: str) -> None:
    outside = tmp_path_factory.mktemp("outside")
    make_checkpoint(outside)
    (root / "link").symlink_to(outside / "base")
    model = MODEL.model_copy(update={"base": path})
    assert _code(root, model) == (code, "/model/base")


def test_a_file_that_links_out_of_the_root(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    weights = root / "base" / "model.safetensors"
    outside = tmp_path_factory.mktemp("outside") / "model.safetensors"
    weights.rename(outside)
    weights.symlink_to(outside)
    assert _code(root) == ("path_outside_root", "/model/base")


def test_missing_and_truncated_weights(root: Path) -> None:
    weights = root / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert _code(root) == ("malformed_file", "/model/base")
    weights.unlink()
    assert _code(root) == ("missing_file", "/model/base")


def test_a_foreign_base_name_is_a_warning(root: Path) -> None:
    _edit(root / "adapter" / "adapter_config.json", base_model_name_or_path="/training/machine/other")
    (warning,) = inspect_checkpoint(root, MODEL, ADAPTER).warnings
    assert "/training" not in warning


def _header(entries: object, data: bytes = b"") -> bytes:
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{x",
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(3)),
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        _header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
        _header({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, bytes(4)),
        _header({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
        _header({"a": None}),
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadSafetensors):
        read_header(path)


@pytest.mark.parametrize(
    ("model_type", "positions"),
    [("bert", 144), ("distilbert", 144), ("roberta", 143), ("xlm-roberta", 143), ("mpnet", 142), ("deberta-v2", 144)],
)
def test_rows_longer_than_the_model_has_positions_for(tmp_path: Path, model_type: str, positions: int) -> None:
    make_checkpoint(tmp_path, model_type)
    inspect_checkpoint(tmp_path, MODEL.model_copy(update={"max_length": positions}), ADAPTER)
    longer = MODEL.model_copy(update={"max_length": positions + 1})
    assert _code(tmp_path, longer) == ("too_long_for_model", "/model/max_length")


def test_an_adapter_in_the_folder_of_the_base(root: Path) -> None:
    (root / "base" / "adapter_config.json").write_text("{}")
    assert _code(root) == ("unsupported_model", "/model/base")
