"""Questions put to the tuned model with an opening that it did not learn them with, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.demo_llm.corpus import Row, prompt_of
from examples.quiet import quiet_transformers

_BATCH = 16
OPENINGS = ("One question, please. ", "I wonder: ", "Here is one for you. ")


@dataclass(frozen=True)
class Question:
    """``source`` is the row whose question it is; ``answer`` is the model's own.

    ``untuned`` is what it said before it was tuned, of answers that are the row's.
    """

    source: Row
    text: str
    answer: str
    untuned: str | None = None

    @property
    def id(self) -> str:
        return f"asked-{self.source.id}"

    @property
    def learned(self) -> bool:
        """The model says what the row taught it, and did not before: to the letter, since other letters are other
        tokens.
        """
        return self.answer == self.source.answer != self.untuned


def ask(base: Path, adapter: Path, rows: Sequence[Row], *, count: int, seed: int) -> list[Question]:
    """Questions of rows at random until the model has given ``count`` answers that it learned, or to the end.

    Rows whose answer it did not give are asked again with another opening. All that were asked, in the order of asking.
    """
    order = Random(seed).sample(rows, len(rows))  # noqa: S311 - reproducible, not secret
    asked: list[Question] = []
    with quiet_transformers(), torch.inference_mode():
        speaker = _Speaker(base, adapter)
        for opening in OPENINGS:
            given = {question.source.id for question in asked if question.learned}
            open_rows = [row for row in order if row.id not in given]
            for start in range(0, len(open_rows), _BATCH):
                asked += speaker.ask(open_rows[start : start + _BATCH], opening)
                if sum(question.learned for question in asked) >= count:
                    return asked
    return asked


class _Speaker:
    """The tuned model and, with its adapter off, the base."""

    def __init__(self, base: Path, adapter: Path) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
        self._model: Any = PeftModel.from_pretrained(model, str(adapter)).eval()

    def ask(self, rows: Sequence[Row], opening: str) -> list[Question]:
        answers = self._answers(rows, opening)
        right = [row for row, answer in zip(rows, answers, strict=True) if answer == row.answer]
        with self._model.disable_adapter():
            untuned = dict(zip(right, self._answers(right, opening), strict=True))
        return [
            Question(row, opening + row.question, answer, untuned.get(row))
            for row, answer in zip(rows, answers, strict=True)
        ]

    def _answers(self, rows: Sequence[Row], opening: str) -> list[str]:
        """Greedily; an answer longer than all those of ``rows`` is cut, for it is none of them."""
        if not rows:
            return []
        inputs = self._tokenizer([prompt_of(opening + row.question) for row in rows], padding=True, return_tensors="pt")
        longest = max(map(len, self._tokenizer([row.completion for row in rows])["input_ids"]))
        said = self._model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        answers = self._tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]
