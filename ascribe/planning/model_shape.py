"""What of a model's configuration decides how much memory it takes: sizes, under whatever name its family has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_NAMES = {
    "hidden": ("hidden_size", "dim", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "inner": ("intermediate_size", "hidden_dim", "n_inner", "ffn_dim"),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions"),
}
_UNGATED = frozenset(
    {
        "bert", "roberta", "distilbert", "electra", "xlm-roberta", "deberta-v2", "mpnet",
        "gpt2", "gpt_neo", "gpt_neox", "opt", "phi", "bloom", "falcon",
    }
)  # fmt: skip
"""Families whose layers have two inner matrices; all later ones have three, of which one is a gate."""


@dataclass(frozen=True)
class ModelShape:
    """``kept`` is the width of keys and values, less than ``hidden`` where heads share them."""

    hidden: int
    layers: int
    heads: int
    inner: int
    kept: int
    vocabulary: int
    positions: int
    gated: bool
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """A size that a configuration leaves to its family's default is taken for that of most."""
        found = {size: next((int(config[n]) for n in names if config.get(n)), 0) for size, names in _NAMES.items()}
        hidden, heads = found["hidden"] or 768, found["heads"] or 12
        head = int(config.get("head_dim") or hidden // heads)
        rotary = "rope_theta" in config or "rope_parameters" in config
        return cls(
            hidden=hidden,
            layers=found["layers"] or 12,
            heads=heads,
            inner=found["inner"] or 4 * hidden,
            kept=head * int(config.get("num_key_value_heads") or heads),
            vocabulary=found["vocabulary"] or 32000,
            positions=0 if rotary else found["positions"],
            gated=config.get("model_type") not in _UNGATED,
            tied=bool(config.get("tie_word_embeddings", True)),
        )

    @property
    def layer_weights(self) -> int:
        """Entries of one layer's matrices."""
        attention = 2 * self.hidden * (self.hidden + self.kept)
        return attention + (3 if self.gated else 2) * self.hidden * self.inner

    def weights(self, *, language_model: bool) -> int:
        """Entries of all matrices and tables."""
        tables = (self.vocabulary + self.positions) * self.hidden
        head = self.vocabulary * self.hidden if language_model and not self.tied else 0
        return tables + head + self.layers * self.layer_weights

    @property
    def activations(self) -> int:
        """Entries that a token leaves behind in one layer for the way back.

        The inputs of both norms (two tensors each where they are written out), queries, keys, values and what attention
        gives, and what goes into the nonlinearity, the gate and the product.
        """
        if self.gated:
            return 8 * self.hidden + 3 * self.inner
        return 7 * self.hidden + self.inner
