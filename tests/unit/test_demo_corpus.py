"""The demo's rows: what is split, what is flipped and what a reader of the files can see."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from examples.demo.corpus import FLIP_SHARE, TOPICS, VALIDATION_SHARE, Corpus, build_corpus, normalise, write


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus(0)


def test_every_text_stands_once(corpus: Corpus) -> None:
    texts = Counter(normalise(row.text) for row in (*corpus.train, *corpus.validation))
    assert set(texts.values()) == {1}
    assert "" not in texts
    assert "yes." not in texts  # said under emotion and under trivia
    assert len(texts) > 1_000


def test_ids_are_unique_and_do_not_name_the_topic(corpus: Corpus) -> None:
    ids = [row.id for row in (*corpus.train, *corpus.validation)]
    assert len(set(ids)) == len(ids)
    assert [row.id for row in corpus.train] == [f"t{index:04d}" for index in range(len(corpus.train))]
    assert len({row.true_label for row in corpus.train[:30]}) == len(TOPICS)


def test_a_fifth_of_the_train_labels_is_wrong(corpus: Corpus) -> None:
    flipped = [row for row in corpus.train if row.flipped]
    assert len(flipped) == round(FLIP_SHARE * len(corpus.train))
    assert {row.label for row in flipped} == set(TOPICS)


def test_validation_is_clean_and_stratified(corpus: Corpus) -> None:
    assert not any(row.flipped for row in corpus.validation)
    assert 80 <= len(corpus.validation) <= 120
    held_out = Counter(row.true_label for row in corpus.validation)
    total = held_out + Counter(row.true_label for row in corpus.train)
    assert held_out == {topic: round(VALIDATION_SHARE * total[topic]) for topic in TOPICS}


def test_the_seed_decides_all() -> None:
    assert build_corpus(3) == build_corpus(3)
    assert build_corpus(3) != build_corpus(4)


def test_limit_bounds_all_rows_and_keeps_both_parts() -> None:
    small = build_corpus(0, limit=160)
    assert len(small.train) + len(small.validation) == 160
    assert small.validation
    assert any(row.flipped for row in small.train)


def test_files_give_the_flips_away_only_where_they_should(corpus: Corpus, tmp_path: Path) -> None:
    write(corpus, tmp_path / "topics")
    lines = (tmp_path / "topics" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == [{"id": row.id, "text": row.text, "label": row.label} for row in corpus.train]
    assert len((tmp_path / "topics" / "validation.jsonl").read_text(encoding="utf-8").splitlines()) == 99
    flipped = json.loads((tmp_path / "topics" / "flipped.json").read_text(encoding="utf-8"))
    assert flipped == [row.id for row in corpus.train if row.label != row.true_label]
