"""Questions put to the tuned model in other words than it learned them in, and what it says."""

from __future__ import annotations

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
    """``source`` is the row whose question it is; ``answer`` is the model's own."""

    source: Row
    text: str
    answer: str

    @property
    def learned(self) -> bool:
        """The model says what the row taught it, to the letter: other letters are other tokens."""
        return self.answer == self.source.answer


def reword(question: str, random: Random) -> str:
    """The same question with an opening before it, its first letter small and its end mark another."""
    bare = question.rstrip(" .?!")
    return f"{random.choice(_OPENINGS)}{bare[:1].lower()}{bare[1:]}, what would you say?"


def ask(base: Path, adapter: Path, rows: tuple[Row, ...], *, count: int, seed: int) -> list[Question]:
    """Reworded questions of rows at random until the model has given ``count`` answers that it learned, or to the end.

    All that were asked, in the order of asking.
    """
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    order = random.sample(rows, len(rows))
    asked: list[Question] = []
    with quiet_transformers(), torch.inference_mode():
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, padding_side="left")
        untuned = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
        generate: Any = PeftModel.from_pretrained(untuned, str(adapter)).eval().generate
        for start in range(0, len(order), _BATCH):
            if sum(question.learned for question in asked) >= count:
                break
            sources = order[start : start + _BATCH]
            texts = [reword(row.question, random) for row in sources]
            inputs = tokenizer([prompt_of(text) for text in texts], padding=True, return_tensors="pt")
            said: torch.Tensor = generate(**inputs, max_new_tokens=_MOST_TOKENS, do_sample=False)
            answers = tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            asked += [Question(*each) for each in zip(sources, texts, map(str.strip, answers), strict=True)]
    return asked
