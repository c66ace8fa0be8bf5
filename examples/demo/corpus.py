"""The demo's data: real dialogue turns labelled with their topic, and a known share of wrong labels to find.

The corpus repeats itself (a question stands once before each of its answers), so a turn is kept once, however it is
capitalised or spaced. Otherwise the same text would sit in train and validation, and a detector would look better
than it is. A turn that belongs to two topics has no true label and is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import yaml
from chatterbot_corpus import corpus as chatterbot

TOPICS = ("ai", "coding", "emotion", "trivia")
VALIDATION_SHARE = 0.09
"""About 100 rows: enough for a steady mean gradient, few enough that a score matrix stays cheap."""
FLIP_SHARE = 0.2


@dataclass(frozen=True)
class Row:
    """One turn. ``label`` is the one that is given to the model, ``true_label`` the topic it came from."""

    id: str
    text: str
    label: str
    true_label: str

    @property
    def flipped(self) -> bool:
        return self.label != self.true_label


@dataclass(frozen=True)
class Corpus:
    """Train rows with some labels flipped, clean validation rows; no text is in both."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]


def build_corpus(seed: int, *, limit: int | None = None) -> Corpus:
    """Split and flip with ``seed``: the same seed gives the same rows. ``limit`` bounds train and validation together.

    Ids are numbered after shuffling, so that an id says nothing about the true label.
    """
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    turns = list(unique_turns())
    random.shuffle(turns)
    train, validation = _stratified_split(turns[:limit])
    flipped = set(random.sample(range(len(train)), round(FLIP_SHARE * len(train))))
    return Corpus(
        train=tuple(
            _flip(row, random) if index in flipped else row for index, row in enumerate(_number(train, prefix="t"))
        ),
        validation=tuple(_number(validation, prefix="v")),
    )


def unique_turns() -> Iterator[tuple[str, str]]:
    """Every distinct turn as ``(text, topic)``, in the order of the files, without those of more than one topic."""
    text_of: dict[str, str] = {}
    topics_of: dict[str, set[str]] = {}
    for topic in TOPICS:
        for text in _turns(topic):
            key = normalise(text)
            text_of.setdefault(key, text)
            topics_of.setdefault(key, set()).add(topic)
    for key, text in text_of.items():
        if key and len(topics_of[key]) == 1:
            yield text, next(iter(topics_of[key]))


def normalise(text: str) -> str:
    """What two texts have in common when they differ only by case or white space."""
    return " ".join(text.split()).casefold()


def write(corpus: Corpus, folder: Path) -> None:
    """Write ``train.jsonl``, ``validation.jsonl`` and ``flipped.json``; the rows carry the given label alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", corpus.train), ("validation", corpus.validation)):
        lines = (json.dumps({"id": row.id, "text": row.text, "label": row.label}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    flipped = [row.id for row in corpus.train if row.flipped]
    (folder / "flipped.json").write_text(json.dumps(flipped) + "\n", encoding="utf-8")


def _turns(topic: str) -> Iterator[str]:
    source = Path(chatterbot.DATA_DIRECTORY) / "english" / f"{topic}.yml"
    for conversation in yaml.safe_load(source.read_text(encoding="utf-8"))["conversations"]:
        # One question of trivia stands bare where a list is meant.
        turns = [conversation] if isinstance(conversation, str) else conversation
        yield from (turn.strip() for turn in turns)


def _stratified_split(turns: Iterable[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Give validation the first ``VALIDATION_SHARE`` of each topic, the rest to train, both in the order given."""
    by_topic: dict[str, list[tuple[str, str]]] = {topic: [] for topic in TOPICS}
    turns = list(turns)
    for turn in turns:
        by_topic[turn[1]].append(turn)
    held_out = {turn for group in by_topic.values() for turn in group[: round(VALIDATION_SHARE * len(group))]}
    return [turn for turn in turns if turn not in held_out], [turn for turn in turns if turn in held_out]


def _number(turns: Iterable[tuple[str, str]], *, prefix: str) -> Iterator[Row]:
    for index, (text, topic) in enumerate(turns):
        yield Row(id=f"{prefix}{index:04d}", text=text, label=topic, true_label=topic)


def _flip(row: Row, random: Random) -> Row:
    return replace(row, label=random.choice([topic for topic in TOPICS if topic != row.true_label]))
