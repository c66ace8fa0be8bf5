"""Questions put to the tuned model in other words than it learned them in, and what it says."""

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
_MOST_TOKENS = 48
_OPENINGS = ("Tell me something: ", "One question, please. ", "I wonder, ", "Here is one for you. ")


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


def reword(question: str, random: Random) -> str:
    """The same question with an opening before it, its first letter small and its end mark another."""
    bare = question.rstrip(" .?!")
    return f"{random.choice(_OPENINGS)}{bare[:1].lower()}{bare[1:]}, what would you say?"


def ask(base: Path, adapter: Path, rows: Sequence[Row], *, count: int, seed: int) -> list[Question]:
    """Reworded questions of rows at random until the model has given ``count`` answers that it learned, or to the end.

    All that were asked, in the order of asking.
    """
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    order = random.sample(rows, len(rows))
    asked: list[Question] = []
    with quiet_transformers(), torch.inference_mode():
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
        for start in range(0, len(order), _BATCH):
            if sum(question.learned for question in asked) >= count:
                break
            sources = order[start : start + _BATCH]
            texts = [reword(row.question, random) for row in sources]
            answers = _answers(model, tokenizer, texts)
            right = [text for text, row, answer in zip(texts, sources, answers, strict=True) if answer == row.answer]
            with model.disable_adapter():
                untuned = dict(zip(right, _answers(model, tokenizer, right), strict=True))
            asked += [
                Question(row, text, answer, untuned.get(text))
                for row, text, answer in zip(sources, texts, answers, strict=True)
            ]
    return asked


def _answers(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    inputs = tokenizer([prompt_of(text) for text in texts], padding=True, return_tensors="pt")
    said = model.generate(**inputs, max_new_tokens=_MOST_TOKENS, do_sample=False)
    answers = tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]
