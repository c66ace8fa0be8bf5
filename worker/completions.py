"""Rows of a language model of which ``max_length`` leaves no token to learn: refused by name, or left out and told."""

from __future__ import annotations

from dataclasses import dataclass, field

from ascribe.errors import InvalidInput, Problem
from ascribe.sources.checkpoints import Checkpoint
from ascribe.sources.rows import Rows
from ascribe.spec import ModelSpec
from worker.data import encode
from worker.models import load_tokenizer

_NAMED = 20
_CHUNK = 1024


def target_texts(rows: Rows, checkpoint: Checkpoint, max_length: int) -> tuple[tuple[str, ...], ...]:
    """The text of every target token of every row of a language model."""
    assert rows.completions is not None
    tokenizer = load_tokenizer(checkpoint)
    tokens, targets = encode(rows.texts, rows.completions, tokenizer, max_length)
    return tuple(
        tuple(str(tokenizer.decode([ids[place]])) for place in target)
        for ids, target in zip(tokens, targets, strict=True)
    )


@dataclass
class CutCompletions:
    """What the spec wants done with them. ``warnings`` name the rows that were left out."""

    checkpoint: Checkpoint
    model: ModelSpec
    warnings: list[str] = field(default_factory=list)

    def leave_out(self, rows: Rows, pointer: str) -> Rows:
        """``rows`` but those that are cut off; all rows of a classifier.

        Raises InvalidInput: there are some and the spec refuses them, or no row is left.
        """
        cut = self._cut(rows) if rows.completions is not None else []
        if not cut:
            return rows
        message = (
            f"max_length {self.model.max_length} leaves no token of the completion: raise it, or shorten the prompt"
        )
        if self.model.cut_completions == "refuse" or len(cut) == len(rows):
            raise InvalidInput(
                f"{len(cut)} row(s) have nothing to learn from, the first is row {cut[0]} (from 0): {message}",
                errors=[
                    Problem(f"{pointer}/source/rows/{row}/completion", "completion_cut_off", message)
                    for row in cut[:_NAMED]
                ],
            )
        named = ", ".join(rows.ids[row] for row in cut[:5]) + (f" and {len(cut) - 5} more" if len(cut) > 5 else "")
        self.warnings.append(
            f"{len(cut)} {pointer.strip('/')} row(s) were left out, as max_length {self.model.max_length} leaves no "
            f"token of their completion: {named}"
        )
        return rows.without(set(cut))

    def _cut(self, rows: Rows) -> list[int]:
        assert rows.completions is not None
        tokenizer = load_tokenizer(self.checkpoint)
        found = []
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            _, targets = encode(rows.texts[chunk], rows.completions[chunk], tokenizer, self.model.max_length)
            found += [start + place for place, target in enumerate(targets) if not target]
        return found
