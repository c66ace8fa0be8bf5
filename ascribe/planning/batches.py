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
    """``usual``: tokens of a row that a quarter of all rows do not reach. ``target_share``: of tokens, predicted ones.

    ``tokens`` and ``characters`` are of all rows.
    """

    rows: int
    longest: int
    usual: int
    tokens: int
    characters: int
    target_share: float

    @classmethod
    def of(cls, rows: Rows, max_length: int) -> Self:
        seconds = rows.text_pairs or rows.completions or repeat("")
        pairs = [(len(text), len(second)) for text, second in zip(rows.texts, seconds, strict=False)]
        lengths = sorted(min(max_length, _tokens(first + second)) for first, second in pairs)
        characters = sum(first + second for first, second in pairs)
        completions = sum(second for _, second in pairs) if rows.completions else 0
        return cls(
            rows=len(lengths),
            longest=lengths[-1],
            usual=lengths[len(lengths) // 4],
            tokens=sum(lengths),
            characters=characters,
            target_share=completions / max(characters, 1),
        )

    @classmethod
    def unknown(cls) -> Self:
        """Of rows that nobody has read yet: at least one, of at least a token."""
        return cls(1, 1, 1, 1, 0, 1.0)

    def largest_batch(self, batching: Batching) -> tuple[int, int]:
        """Padded tokens, and rows, of the largest batch of a shard. The one with the most rows has the shortest."""
        rows = min(self.rows, batching.shard_rows)
        there = int(rows * self.tokens / self.rows)
        tokens = max(self.longest, min(batching.token_budget, there))
        return tokens, max(1, min(rows, tokens // self.usual))


def _tokens(characters: int) -> int:
    return _SPECIAL_TOKENS + round(characters / _CHARACTERS_PER_TOKEN)
