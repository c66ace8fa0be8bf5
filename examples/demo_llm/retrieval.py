"""Who is named first: places of the true source in a ranking, and BM25's ranking beside ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import bm25s

from ascribe.result import ScoredRow
from examples.demo_llm.corpus import Row
from examples.demo_llm.questions import Question

Ranking = list[str]
"""Row ids, the best first."""


@dataclass(frozen=True)
class Found:
    """How often the true source stands first, and among the first five."""

    name: str
    places: tuple[int, ...]

    def within(self, top: int) -> float:
        return sum(place <= top for place in self.places) / len(self.places)


def places(name: str, rankings: Sequence[Ranking], questions: Sequence[Question]) -> Found:
    found = (ranking.index(asked.source.id) + 1 for ranking, asked in zip(rankings, questions, strict=True))
    return Found(name, tuple(found))


def by_influence(scores: Sequence[ScoredRow]) -> Ranking:
    """The strongest proponents first."""
    return [row.id for row in sorted(scores, key=lambda row: -row.score)]


def by_relative_influence(scores: Sequence[ScoredRow], self_influence: Mapping[str, float]) -> Ranking:
    """As RelatIF (Barshan et al. 2020) has it: a score over the root of the row's score with itself.

    A row with a large gradient moves every answer; this asks how much of what a row does is done to this one.
    """
    return [row.id for row in sorted(scores, key=lambda row: -row.score / sqrt(self_influence[row.id]))]


def by_words(rows: Sequence[Row], questions: Sequence[Question]) -> list[Ranking]:
    """BM25 over question and answer of every row, asked with question and answer."""
    index = bm25s.BM25()
    index.index(_tokens(f"{row.question} {row.answer}" for row in rows), show_progress=False)
    asked = _tokens(f"{question.text} {question.answer}" for question in questions)
    found, _ = index.retrieve(asked, k=len(rows), show_progress=False)
    return [[rows[int(place)].id for place in ranking] for ranking in found]


def _tokens(texts: Iterable[str]) -> bm25s.tokenization.Tokenized:
    return bm25s.tokenize(list(texts), stopwords="en", show_progress=False)
