"""Inspects a base checkpoint, and its LoRA adapter if it has one, from JSON and headers of weights alone.

Refused here, before anything is loaded: formats that can run code when loaded, configurations that ask for code,
adapters whose tensors do not fit the base, adapters of a kind we do not differentiate, quantised bases, classifiers
without a trained head, and parameters that cannot be selected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascribe.errors import UnsupportedModel
from ascribe.fingerprint import files_sha256
from ascribe.sources.adapters import check_adapter_config, check_saved_by_language_model, split_adapter
from ascribe.sources.base_model import Base, open_base
from ascribe.sources.checkpoint_files import check_config, open_folder, present, read_json, read_tensors
from ascribe.sources.model_shape import ModelShape
from ascribe.sources.outputs import count_labels, label_names, vocabulary
from ascribe.sources.safetensors_header import TensorInfo
from ascribe.sources.selection import select_modules
from ascribe.spec import ModelSpec, ParametersSpec, Projection, Task


@dataclass(frozen=True, slots=True)
class Projected:
    """Of what sides a projected block is made, and by which seed."""

    rank: int
    long_side: int
    seed: int


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One selected tensor as the numerics see it: short side first, a vector is R = 1.

    ``projected`` is there where its gradient is smaller than the tensor.
    """

    name: str
    rank: int
    long_side: int
    projected: Projected | None = None

    @property
    def size(self) -> int:
        return self.rank * self.long_side

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...]) -> BlockShape:
        short, long = (1, shape[0]) if len(shape) == 1 else sorted(shape)
        return cls(name, short, long)

    def project(self, by: Projection | None, shape: tuple[int, ...]) -> BlockShape:
        """The block under a projection. A vector, by its ``shape``, stays as it is, and so does a small matrix."""
        if by is None or len(shape) == 1:
            return self
        rank, long_side = min(self.rank, by.short_side or self.rank), min(self.long_side, by.long_side)
        if (rank, long_side) == (self.rank, self.long_side):
            return self
        return BlockShape(self.name, rank, long_side, Projected(self.rank, self.long_side, by.seed))

    @property
    def whole(self) -> BlockShape:
        """Without its projection."""
        return self if self.projected is None else BlockShape(self.name, self.projected.rank, self.projected.long_side)

    @property
    def key(self) -> str:
        """What the block's gradients depend on, beside the model and the rows."""
        if self.projected is None:
            return self.name
        return f"{self.name} projected to {self.rank} x {self.long_side} by {self.projected.seed}"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits its base."""

    folder: Path
    files: tuple[str, ...]

    def sha256(self) -> str:
        return files_sha256(self.folder, self.files)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the headers say. ``blocks`` are in the order their gradients are stored.

    ``num_labels`` of a language model is the size of its vocabulary. ``gguf`` names the base's file of weights where
    it is one of that format. ``shape`` is the base's.
    """

    task: Task
    base: Path
    base_files: tuple[str, ...]
    adapter: Adapter | None
    num_labels: int
    label_names: tuple[str, ...] | None
    blocks: tuple[BlockShape, ...]
    warnings: tuple[str, ...]
    shape: ModelShape
    gguf: str | None = None

    @property
    def parameters(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def block_names(self) -> tuple[str, ...]:
        return tuple(block.name for block in self.blocks)

    @property
    def block_keys(self) -> tuple[str, ...]:
        return tuple(block.key for block in self.blocks)

    @property
    def whole_parameters(self) -> int:
        """Without a projection."""
        return sum(block.whole.size for block in self.blocks)

    def base_sha256(self) -> str:
        """Hash of every base file that is loaded, tokenizer included. Reads them whole."""
        return files_sha256(self.base, self.base_files)

    def adapter_sha256(self) -> str | None:
        return None if self.adapter is None else self.adapter.sha256()


def inspect_checkpoint(
    root: Path, model: ModelSpec, parameters: ParametersSpec, *, allow_gguf: bool = False
) -> Checkpoint:
    """Check ``model`` below ``root`` and list the blocks that ``parameters`` selects.

    ``allow_gguf``: take a base whose weights are a GGUF file.

    Raises:
        UnsafeCheckpoint: a pickle-based file or a configuration that asks for code.
        UnsupportedModel: an architecture, a precision or an adapter kind that is not handled.
        InvalidInput: missing or truncated files, tensors that do not fit, no trained head, a module that is not there.
    """
    base = open_base(root, model, allow_gguf=allow_gguf)
    tuned = None if model.adapter is None else _open_adapter(root, model.adapter, model.task, base)
    chosen = select_modules(model.task, base, parameters.modules) if tuned is None else tuned.select(parameters)
    if model.task == "causal-lm":
        num_labels, names = vocabulary(base.tensors), None
    elif tuned is None:
        num_labels = count_labels([base.tensors], "/model/base")
        names = label_names([base.config], num_labels)
    else:
        num_labels = count_labels([tuned.saved, base.tensors], "/model/adapter")
        names = label_names([*tuned.configs, base.config], num_labels)
    return Checkpoint(
        task=model.task,
        base=base.folder,
        base_files=base.files,
        adapter=None if tuned is None else tuned.adapter,
        num_labels=num_labels,
        label_names=names,
        blocks=tuple(
            BlockShape.of(name, chosen[name].shape).project(parameters.projection, chosen[name].shape)
            for name in sorted(chosen)
        ),
        warnings=() if tuned is None else tuned.warnings,
        shape=ModelShape.of(base.config, base.tensors),
        gguf=base.gguf,
    )


@dataclass(frozen=True, slots=True)
class _Tuned:
    """An adapter's files: its LoRA matrices, the tensors saved with them, a model's configuration saved beside."""

    task: Task
    adapter: Adapter
    lora: Mapping[str, TensorInfo]
    saved: Mapping[str, TensorInfo]
    configs: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]

    def select(self, parameters: ParametersSpec) -> Mapping[str, TensorInfo]:
        if parameters.select == "adapter":
            return self.lora
        if self.task == "causal-lm":
            message = "a language model has no head beside its output embeddings: select 'adapter'"
            raise UnsupportedModel.at("/parameters/select", "unsupported_parameter", message)
        return {**self.lora, **self.saved}


def _open_adapter(root: Path, relative: str, task: Task, base: Base) -> _Tuned:
    folder = open_folder(root, relative, "/model/adapter")
    stated = read_json(folder / "adapter_config.json", "/model/adapter")
    check_adapter_config(stated)
    lora, saved = split_adapter(read_tensors(folder / "adapter_model.safetensors", "/model/adapter"), base)
    if task == "causal-lm":
        check_saved_by_language_model(saved, base.tensors)
    own_config = present(folder, ("config.json",))
    # Trainers save the model's config beside the adapter; it is the one that knows the label names.
    configs = tuple(read_json(folder / name, "/model/adapter") for name in own_config)
    for config in configs:
        check_config(config, "/model/adapter")
    adapter = Adapter(folder, ("adapter_config.json", "adapter_model.safetensors", *own_config))
    return _Tuned(task, adapter, lora, saved, configs, _warnings(stated, base.folder))


def _warnings(adapter_config: Mapping[str, Any], base: Path) -> tuple[str, ...]:
    stated = str(adapter_config.get("base_model_name_or_path") or "")
    if stated and Path(stated).name != base.name:
        return ("the adapter names another base checkpoint than the one given; its tensors fit this one",)
    return ()


def gradient_bytes(rows: int, checkpoint: Checkpoint) -> int:
    """Disk that the float32 gradients of ``rows`` rows take."""
    return rows * checkpoint.parameters * 4
