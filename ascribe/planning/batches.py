"""How long rows are, without a tokenizer, and how large the batches that they make."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import Self

from ascribe.sources.rows import Rows

# Of a text in English by the tokenizers of most models; the special tokens come on top.
_CHARACTERS_PER_TOKEN = 3.7
_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class Batching:
    """A worker's settings that decide how rows go through the model."""

    token_budget: int
    shard_rows: int
    attention: str


@dataclass(frozen=True)
class Lengths:
    """``shard``: tokens of the rows of a shard, the shortest first. ``tokens`` and ``characters`` are of all rows.

    ``targets`` are the tokens that a language model is asked for, of all rows.
    """

    rows: int
    longest: int
    shard: tuple[int, ...]
    tokens: int
    characters: int
    targets: int

    @property
    def target_share(self) -> float:
        """Of the tokens that go through the model, those that it is asked for."""
        return self.targets / self.tokens

    @classmethod
    def of(cls, rows: Rows, *, max_length: int, shard_rows: int) -> Self:
        seconds = rows.text_pairs or rows.completions or repeat("")
        pairs = [(len(text), len(second)) for text, second in zip(rows.texts, seconds, strict=False)]
        lengths = sorted(min(max_length, _tokens(first + second)) for first, second in pairs)
        characters = sum(first + second for first, second in pairs)
        targets = [min(max_length, _tokens(second)) for _, second in pairs] if rows.completions else [0]
        return cls(
            rows=len(lengths),
            longest=lengths[-1],
            shard=tuple(lengths[:: -(-len(lengths) // shard_rows)]),
            tokens=sum(lengths),
            characters=characters,
            targets=min(sum(targets), sum(lengths)),
        )

    @classmethod
    def unknown(cls) -> Self:
        """Of rows that nobody has read yet: at least one, of at least a token."""
        return cls(1, 1, (1,), 1, 0, 1)

    def largest_batch(self, batching: Batching) -> tuple[int, int]:
        """Padded tokens, and rows, of the largest batch. The one with the most rows has the shortest."""
        tokens = max(self.longest, min(batching.token_budget, sum(self.shard)))
        rows = (count for count, length in enumerate(self.shard, 1) if count * length <= batching.token_budget)
        return tokens, max(rows, default=1)


def _tokens(characters: int) -> int:
    return _SPECIAL_TOKENS + round(characters / _CHARACTERS_PER_TOKEN)
