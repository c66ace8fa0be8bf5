"""Chooses a base checkpoint's dense parameters by name: modules, tensors, or patterns of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ascribe.errors import InvalidInput, Problem, UnsupportedModel
from ascribe.sources.base_model import Base
from ascribe.sources.outputs import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, is_output_embedding, is_tied
from ascribe.sources.safetensors_header import TensorInfo
from ascribe.spec import Task

SHOWN_MODULES = 10

_TABLES = ("embeddings", "relative_attention_bias", "wpe", "embed_positions", *INPUT_EMBEDDINGS)
"""Ends of the names of modules whose two-dimensional weight is looked up, not multiplied with."""
_OTHER_HEADS = (
    "cls.", "lm_head.", "lm_predictions.", "mask_predictions.", "generator_", "discriminator_", "vocab_",
)  # fmt: skip
"""Heads of pre-training that some checkpoints still carry; a classifier does not load them."""


def select_modules(task: Task, base: Base, patterns: Sequence[str]) -> dict[str, TensorInfo]:
    """Weights and biases of Linear layers that a pattern names, or whose module one does.

    ``*`` matches any characters, dots too: ``classifier``, ``bert.encoder.layer.5.*.weight``. The output embeddings
    of a language model are not among them.

    Raises:
        InvalidInput: ``no_such_module`` for every pattern that names nothing, with a sample of what there is;
            ``tied_weights`` or ``unsupported_parameter`` for one that names the output embeddings alone.
        UnsupportedModel: the model has no Linear layers of its own, or its weights are GGUF.
    """
    _check_dense(base)
    candidates = _linear_tensors(base.tensors)
    chosen: dict[str, TensorInfo] = {}
    problems = []
    for index, pattern in enumerate(patterns):
        matched = {name: info for name, info in candidates.items() if _names(pattern, name)}
        if not matched:
            code, message = _why_nothing(task, base, pattern, candidates)
            problems.append(Problem(f"/parameters/modules/{index}", code, message))
        chosen |= matched
    if problems:
        raise InvalidInput(problems[0].message, errors=problems)
    return chosen


def _check_dense(base: Base) -> None:
    if base.inputs_first:
        message = "GPT-2's layers are not Linear but their transposes (Conv1D): train a LoRA adapter and name it"
    elif base.gguf:
        message = (
            "weights of a GGUF file are rounded, and no gradient is taken of them: train a LoRA adapter and name it"
        )
    else:
        return
    raise UnsupportedModel.at("/parameters/select", "unsupported_parameter", message)


def _linear_tensors(base: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """A header tells shapes, not layer types: two dimensions and a name that is no table's."""
    modules = {
        name.removesuffix(".weight")
        for name, info in base.items()
        if name.endswith(".weight") and len(info.shape) == 2 and not name.startswith(_OTHER_HEADS)
    }
    modules = {module for module in modules if not module.endswith(_TABLES) and not is_output_embedding(module)}
    return {name: info for name, info in base.items() if name.rpartition(".")[0] in modules}


def _names(pattern: str, tensor: str) -> bool:
    """Whether ``pattern`` fits the tensor or a module that holds it."""
    parts = tensor.split(".")
    return any(fnmatchcase(".".join(parts[:length]), pattern) for length in range(1, len(parts) + 1))


def _why_nothing(task: Task, base: Base, pattern: str, candidates: Mapping[str, TensorInfo]) -> tuple[str, str]:
    outputs = [f"{module}.weight" for module in OUTPUT_EMBEDDINGS]
    if task == "causal-lm" and any(_names(pattern, name) for name in outputs):
        if is_tied(base.config, base.tensors):
            return "tied_weights", (
                "the output embeddings are tied to those of the input, which are looked up: their gradient is no "
                "Linear layer's, leave them out"
            )
        return "unsupported_parameter", "the output embeddings are not among the layers that can be selected"
    if any(_names(pattern, name) for name in base.tensors):
        return "no_such_module", f"fits embeddings or norms, which are no Linear layers, and {_what_exists(candidates)}"
    return "no_such_module", _what_exists(candidates)


def _what_exists(candidates: Mapping[str, TensorInfo]) -> str:
    modules = sorted({name.rpartition(".")[0] for name in candidates})
    # Spread over the model: the first ones alone would all be of one layer.
    step = max(1, len(modules) // SHOWN_MODULES)
    sample = ", ".join(name[:100] for name in [*modules[::step][: SHOWN_MODULES - 1], modules[-1]]) if modules else ""
    return f"fits none of the base's {len(modules)} Linear layers" + (f", such as {sample}" if sample else "")
