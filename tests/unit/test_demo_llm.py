"""The language model demo's parts on a tiny model: rows, tuning, questions, and places in a ranking."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ascribe.result import ScoredRow
from ascribe.settings import WorkerSettings
from ascribe.spec import JobSpec
from examples.demo.corpus import normalise
from examples.demo_llm.corpus import END, Row, build_corpus, write
from examples.demo_llm.finetune import ADAPTER, BASE, TRAIN, Recipe, fine_tune
from examples.demo_llm.methods import METHODS
from examples.demo_llm.questions import OPENINGS, Question, ask
from examples.demo_llm.report import answers, figures
from examples.demo_llm.retrieval import by_influence, by_relative_influence, by_words, places
from tests.support.tiny import WORDS, make_causal_lm
from worker.local import run_locally
from worker.pipeline import Bench


@pytest.fixture(scope="module")
def rows() -> tuple[Row, ...]:
    return build_corpus(0)


def test_every_question_and_every_answer_stands_once(rows: tuple[Row, ...]) -> None:
    assert len(rows) == len({row.id for row in rows}) == 200
    for texts in ([row.question for row in rows], [row.answer for row in rows]):
        assert len({normalise(text) for text in texts}) == 200
    assert build_corpus(0) == rows != build_corpus(1)


def test_words_find_what_was_asked(rows: tuple[Row, ...]) -> None:
    questions = [Question(row, OPENINGS[0] + row.question, row.answer) for row in rows[:20]]
    rankings = by_words(rows, questions)
    assert all(len(set(ranking)) == len(rows) for ranking in rankings)
    found = places("BM25", rankings, questions)
    assert found.within(5) > 0.9
    backwards = places("the other way round", [ranking[::-1] for ranking in rankings], questions)
    assert backwards.places == tuple(len(rows) + 1 - place for place in found.places)


def test_a_row_that_moves_everything_moves_little_of_each() -> None:
    scores = [
        ScoredRow(index=place, id=name, label=None, text="", score=score)
        for place, (name, score) in enumerate({"loud": 8.0, "quiet": 2.0, "against": -9.0}.items())
    ]
    assert by_influence(scores) == ["loud", "quiet", "against"]
    # 8/sqrt(100) = 0.8; 2/sqrt(4) = 1; -9/sqrt(900) = -0.3
    assert by_relative_influence(scores, {"loud": 100.0, "quiet": 4.0, "against": 900.0}) == [
        "quiet",
        "loud",
        "against",
    ]


def test_only_what_the_base_did_not_say_was_learned() -> None:
    row = Row("t0", "Is it so?", "It is.")
    assert Question(row, "so?", "It is.", "No idea").learned
    assert not Question(row, "so?", "It is.", "It is.").learned
    assert not Question(row, "so?", "it is.").learned


def _chat_tokenizer() -> PreTrainedTokenizerFast:
    """As SmolLM2's: it adds nothing to a text, an answer ends with a token of its own, and it pads with that."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[UNK]", "<s>", END, *WORDS])}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs has no annotations
        tokenizer_object=words, unk_token="[UNK]", eos_token=END, pad_token=END
    )


def test_from_rows_to_the_row_that_taught_an_answer(tmp_path: Path) -> None:
    """The demo's way with a model of the same class, in seconds: tuned until it has learned, asked, and traced."""
    words = ["the cat sat", "a dog ran", "red tree", "big mat", "tell me joke", "what is love", "small cat", "undo"]
    rows = tuple(
        Row(f"t{place}", f"how do i {text}", words[(place + 3) % len(words)]) for place, text in enumerate(words)
    )
    make_causal_lm(tmp_path, hidden_size=48, intermediate_size=64, initializer_range=0.3)
    base, adapter = (tmp_path / "base").rename(tmp_path / BASE), tmp_path / ADAPTER
    _chat_tokenizer().save_pretrained(base)
    write(rows, tmp_path / TRAIN)
    recipe = Recipe(
        epochs=40, learning_rate=0.01, rank=16, alpha=32, targets=("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    )
    losses = fine_tune(base, adapter, rows, recipe, Console(quiet=True))
    assert losses["last_loss"] < 0.5 * losses["first_loss"]
    asked = ask(base, adapter, rows, count=len(rows), seed=0)
    assert [question.source.id for question in asked] != [row.id for row in rows]
    assert {question.source for question in asked[: len(rows)]} == set(rows)
    assert all(question.text == OPENINGS[0] + question.source.question for question in asked[: len(rows)])
    questions = [question for question in asked if question.learned]
    assert len({question.source for question in questions}) == len(questions) > len(rows) / 2

    job = run_locally(
        JobSpec.model_validate(METHODS[0].spec(questions)),
        Bench(WorkerSettings(data_root=tmp_path, cache_dir=tmp_path / "cache")),
    )
    rankings = [[rows[int(place)].id for place in score_N.argsort(descending=True)] for score_N in job.scores()]
    found = places(METHODS[0].name, rankings, questions)
    assert found.within(1) > 0.8  # chance: an eighth
    page = StringIO()
    console = Console(file=page, width=200)
    console.print(answers(METHODS[0].name, rows, questions, rankings, by_words(rows, questions)))
    console.print(figures(len(questions), [(found, None)]))
    best = questions[found.places.index(1)]
    assert f"{best.answer} " in page.getvalue()
    assert f"✓ {best.source.question} " in page.getvalue()
    assert f"{found.within(1):.0%}" in page.getvalue()
