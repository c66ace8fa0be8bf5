"""The demo's rows: real questions and answers, each said once, so that an answer has one row that taught it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import yaml
from chatterbot_corpus import corpus as chatterbot

from examples.demo.corpus import normalise

ROWS = 200
_MOST_WORDS = 30  # a longer answer is a listing of code, and takes a tenth of the demo's time
_LEAST_QUESTION_WORDS, _LEAST_ANSWER_CHARACTERS = 3, 3
_PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
END = "<|im_end|>"


@dataclass(frozen=True)
class Row:
    """A question and its answer, and both as the model takes them: in the format it was tuned for conversation in."""

    id: str
    question: str
    answer: str

    @property
    def prompt(self) -> str:
        return prompt_of(self.question)

    @property
    def completion(self) -> str:
        return completion_of(self.answer)


def prompt_of(question: str) -> str:
    return _PROMPT.format(question)


def completion_of(answer: str) -> str:
    return answer + END


def build_corpus(seed: int, limit: int = ROWS) -> tuple[Row, ...]:
    """``limit`` rows at random from all topics of the corpus; no two have one question or one answer."""
    questions, answers, pairs = set(), set(), []
    for question, answer in _pairs():
        if normalise(question) in questions or normalise(answer) in answers:
            continue
        questions.add(normalise(question))
        answers.add(normalise(answer))
        pairs.append((question, answer))
    Random(seed).shuffle(pairs)  # noqa: S311 - reproducible, not secret
    return tuple(Row(f"t{place:03d}", *pair) for place, pair in enumerate(pairs[:limit]))


def write(rows: tuple[Row, ...], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ({"id": row.id, "prompt": row.prompt, "completion": row.completion} for row in rows)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _pairs() -> Iterator[tuple[str, str]]:
    """The first two turns of every conversation, where they are a question of some length and a short answer."""
    for path in sorted((Path(chatterbot.DATA_DIRECTORY) / "english").glob("*.yml")):
        for turns in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            if isinstance(turns, str) or len(turns) < 2:
                continue
            question, answer = (str(turn).strip() for turn in turns[:2])
            if len(question.split()) < _LEAST_QUESTION_WORDS or len(answer) < _LEAST_ANSWER_CHARACTERS:
                continue
            if len(answer.split()) <= _MOST_WORDS and "```" not in answer:
                yield question, answer
