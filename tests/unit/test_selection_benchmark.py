"""The rows that a selection is tried on: none is in two parts, and those to test on have true labels."""

from __future__ import annotations

from benchmarks.selection import split
from examples.demo.corpus import build_corpus


def test_rows_to_test_on_had_no_part_in_the_choice() -> None:
    corpus = build_corpus(0)
    rest, test = split(corpus)
    parts = [{row.id for row in part} for part in (rest.train, test, rest.validation)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(corpus.train) + len(corpus.validation)
    assert not any(row.flipped for row in test)
    assert any(row.flipped for row in rest.train)
