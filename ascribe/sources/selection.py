"""Chooses a base checkpoint's dense parameters by name: modules, tensors, or patterns of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ascribe.errors import InvalidInput, Problem
from ascribe.sources.safetensors_header import TensorInfo

SHOWN_MODULES = 10

_TABLES = ("embeddings", "relative_attention_bias")
"""Ends of the names of modules whose two-dimensional weight is looked up, not multiplied with."""
_OTHER_HEADS = (
    "cls.", "lm_head.", "lm_predictions.", "mask_predictions.", "generator_", "discriminator_", "vocab_",
)  # fmt: skip
"""Heads of pre-training that some checkpoints still carry; a classifier does not load them."""


def select_modules(base: Mapping[str, TensorInfo], patterns: Sequence[str]) -> dict[str, TensorInfo]:
    """Weights and biases of Linear layers that a pattern names, or whose module one does.

    ``*`` matches any characters, dots too: ``classifier``, ``bert.encoder.layer.5.*.weight``.

    Raises:
        InvalidInput: ``no_such_module`` for every pattern that names nothing, with a sample of what there is.
    """
    candidates = _linear_tensors(base)
    chosen: dict[str, TensorInfo] = {}
    problems = []
    for index, pattern in enumerate(patterns):
        matched = {name: info for name, info in candidates.items() if _names(pattern, name)}
        if not matched:
            problems.append(Problem(f"/parameters/modules/{index}", "no_such_module", _what_exists(candidates)))
        chosen |= matched
    if problems:
        raise InvalidInput(problems[0].message, errors=problems)
    return chosen


def _linear_tensors(base: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """A header tells shapes, not layer types: two dimensions and a name that is no table's."""
    modules = {
        name.removesuffix(".weight")
        for name, info in base.items()
        if name.endswith(".weight") and len(info.shape) == 2 and not name.startswith(_OTHER_HEADS)
    }
    modules = {module for module in modules if not module.endswith(_TABLES)}
    return {name: info for name, info in base.items() if name.rpartition(".")[0] in modules}


def _names(pattern: str, tensor: str) -> bool:
    """Whether ``pattern`` fits the tensor or a module that holds it."""
    parts = tensor.split(".")
    return any(fnmatchcase(".".join(parts[:length]), pattern) for length in range(1, len(parts) + 1))


def _what_exists(candidates: Mapping[str, TensorInfo]) -> str:
    modules = sorted({name.rpartition(".")[0] for name in candidates})
    # Spread over the model: the first ones alone would all be of one layer.
    step = max(1, len(modules) // SHOWN_MODULES)
    sample = ", ".join(name[:100] for name in [*modules[::step][: SHOWN_MODULES - 1], modules[-1]]) if modules else ""
    return f"fits none of the base's {len(modules)} Linear layers" + (f", such as {sample}" if sample else "")
