"""What of a model decides how much memory it takes: sizes, under whatever name its family has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ascribe.sources.safetensors_header import TensorInfo

_NAMES = {
    "hidden": ("hidden_size", "dim", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "inner": ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim"),
}
_UNGATED = frozenset(
    {
        "bert", "roberta", "distilbert", "electra", "xlm-roberta", "deberta-v2", "mpnet",
        "gpt2", "gpt_neox", "opt", "phi", "bloom", "starcoder2",
    }
)  # fmt: skip
"""Families whose layers have two inner matrices; all later ones have three, of which one is a gate."""


@dataclass(frozen=True)
class ModelShape:
    """``weights`` are the entries of all its tensors; ``kept`` is the width of keys and values, less than ``hidden``
    where heads share them."""

    weights: int
    hidden: int
    layers: int
    heads: int
    inner: int
    kept: int
    gated: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Self:
        """A size that a configuration leaves to its family's default is taken for that of most."""
        found = {size: next((int(config[n]) for n in names if config.get(n)), 0) for size, names in _NAMES.items()}
        once = {id(info): info for info in tensors.values()}  # those of a GGUF file stand there under many names
        hidden, heads = found["hidden"] or 768, found["heads"] or 12
        head = int(config.get("head_dim") or hidden // heads)
        return cls(
            weights=sum(math.prod(info.shape) for info in once.values()),
            hidden=hidden,
            layers=found["layers"] or 12,
            heads=heads,
            inner=found["inner"] or 4 * hidden,
            kept=head * int(config.get("num_key_value_heads") or heads),
            gated=config["model_type"] not in _UNGATED,
        )

    @property
    def layer_weights(self) -> int:
        """Entries of one layer's matrices."""
        attention = 2 * self.hidden * (self.hidden + self.kept)
        return attention + (3 if self.gated else 2) * self.hidden * self.inner

    @property
    def activations(self) -> int:
        """Entries that a token leaves behind in one layer for the way back.

        The inputs of both norms (two tensors each where they are written out), queries, keys, values and what attention
        gives, and what goes into the nonlinearity, the gate and the product.
        """
        if self.gated:
            return 8 * self.hidden + 3 * self.inner
        return 7 * self.hidden + self.inner
