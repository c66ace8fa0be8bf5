"""``make demo-llm``: tune SmolLM2 on dialogue, ask it questions, and find the rows that taught it its answers.

Everything goes the way a user's job goes: HTTP to the API, through Redis and Celery to a worker, and back.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job
from examples.demo_llm.corpus import Row, completion_of, prompt_of
from examples.demo_llm.finetune import ADAPTER, BASE, TRAIN, Recipe, prepare
from examples.demo_llm.questions import Question, ask
from examples.demo_llm.retrieval import Found, Ranking, by_words, places
from examples.jobs import submit

HOME = Path(".ascribe/demo-llm")
QUESTIONS = 50
SHOWN = 8
WIDTH = 150


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    curvature: str
    solver: str


METHODS = (
    Method("gfim + cholesky", "gfim", "cholesky"),
    Method("datainf", "empirical_fisher", "datainf"),
    Method("gradient products", "none", "identity"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo_llm", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the rows, the tuning and the questions")
    seed = parser.parse_args().seed
    home, console, started = HOME / f"seed-{seed}", Console(), time.monotonic()
    data_root = home / "data"
    with _all_cores():
        rows = prepare(data_root, Recipe(seed=seed), console)
        console.print("Asking it questions in other words than it learned")
        asked = ask(data_root / BASE, data_root / ADAPTER, rows, count=QUESTIONS, seed=seed)
    learned = [question for question in asked if question.learned][:QUESTIONS]
    console.print(
        f"It was asked {len(asked)} questions, and gave {sum(question.learned for question in asked)} answers as it "
        f"had learned them: {len(learned)} of these are traced"
    )
    with (
        console.status("Starting the embedded server, the API and a worker"),
        Stack(data_root, state_dir=home / "state") as stack,
        Client(stack.url) as client,
    ):
        jobs = [submit(client, method.name, _spec(method, learned), console) for method in METHODS]
        rankings = [_rankings(client, job, learned) for job in jobs]
        report = home / "job-report.html"
        report.write_text(client.report(jobs[0].id), encoding="utf-8")
    words = by_words(rows, learned)
    found = [places(method.name, ranking, learned) for method, ranking in zip(METHODS, rankings, strict=True)]
    _print(rows, learned, rankings[0], words, [*found, places("BM25", words, learned)], jobs)
    console.print(f"The first job's own report, answers coloured token by token: {report}")
    console.print(f"Done in {time.monotonic() - started:.0f} s")
    return 0


@contextmanager
def _all_cores() -> Iterator[None]:
    """Threads for every core that this process may use, as long as no worker is there to share them with."""
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _spec(method: Method, learned: list[Question]) -> dict[str, Any]:
    asked = [
        {"id": f"q{place:02d}", "prompt": prompt_of(question.text), "completion": completion_of(question.answer)}
        for place, question in enumerate(learned)
    ]
    return {
        "name": f"demo-llm: {method.name}",
        "labels": {"demo": "dialogue"},
        "model": {"task": "causal-lm", "base": BASE, "adapter": ADAPTER},
        "train": {"source": {"kind": "file", "path": TRAIN}},
        "validation": {"source": {"kind": "inline", "rows": asked}},
        "curvature": {"kind": method.curvature},
        "solver": {"kind": method.solver},
    }


def _rankings(client: Client, job: Job, learned: list[Question]) -> list[Ranking]:
    return [
        [row.id for row in client.scores(job.id, validation_id=f"q{place:02d}", order="proponents")]
        for place in range(len(learned))
    ]


def _print(
    rows: tuple[Row, ...],
    learned: list[Question],
    ours: list[Ranking],
    words: list[Ranking],
    found: list[Found],
    jobs: list[Job],
) -> None:
    # A log, or a narrow terminal, gets the whole table rather than a cut one.
    console = Console(width=max(Console().width, WIDTH))
    question_of = {row.id: row.question for row in rows}
    title = f"Which rows taught it this answer? ({METHODS[0].name}; ✓ is the true source)"
    table = Table(title=title, title_justify="left")
    for heading in ("question", "its answer", "first three by influence", "first three by BM25"):
        table.add_column(heading, max_width=44, overflow="fold")
    for question, by_influence, by_word in list(zip(learned, ours, words, strict=True))[:SHOWN]:
        table.add_row(
            question.text,
            question.answer,
            *(
                "\n".join(f"{'✓' if row == question.source.id else '·'} {question_of[row]}" for row in ranking[:3])
                for ranking in (by_influence, by_word)
            ),
            end_section=True,
        )
    console.print(table)
    figures = Table(title=f"The true source of {len(learned)} answers", title_justify="left")
    for heading in ("method", "first", "among five", "worst place", "seconds", "status"):
        figures.add_column(heading, justify="left" if heading in ("method", "status") else "right")
    for place, line in enumerate(found):
        told = jobs[place].result if place < len(jobs) else None
        figures.add_row(
            line.name,
            f"{line.within(1):.0%}",
            f"{line.within(5):.0%}",
            str(max(line.places)),
            f"{told.diagnostics.seconds['total']:.1f}" if told else "-",
            told.diagnostics.status.value if told else "-",
        )
    console.print(figures)


if __name__ == "__main__":
    sys.exit(main())
