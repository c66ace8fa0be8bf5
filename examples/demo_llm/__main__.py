"""``make demo-llm``: tune SmolLM2 on dialogue, ask it questions, and find the rows that taught it its answers.

Everything goes the way a user's job goes: HTTP to the API, through Redis and Celery to a worker, and back.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from ascribe.client import Client
from ascribe.embedded import Stack
from ascribe.job import Job
from ascribe.result import SELF_INFLUENCE
from examples.demo_llm.finetune import ADAPTER, BASE, Recipe, prepare
from examples.demo_llm.methods import METHODS
from examples.demo_llm.questions import Question, ask
from examples.demo_llm.report import answers, figures, wide_console
from examples.demo_llm.retrieval import Found, Ranking, by_influence, by_relative_influence, by_words, places
from examples.jobs import submit

HOME = Path(".ascribe/demo-llm")
QUESTIONS = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo_llm", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the rows, the tuning and the questions")
    seed = parser.parse_args().seed
    home, console, started = HOME / f"seed-{seed}", Console(), time.monotonic()
    data_root = home / "data"
    with _all_cores():
        rows = prepare(data_root, Recipe(seed=seed), console)
        console.print("Asking it questions with openings that it did not learn them with")
        asked = ask(data_root / BASE, data_root / ADAPTER, rows, count=QUESTIONS, seed=seed)
    learned = [question for question in asked if question.learned]
    console.print(
        f"Asked {len(asked)} times, it gave {len(learned)} answers that it has learned, to the letter; "
        f"{min(len(learned), QUESTIONS)} of them are traced"
    )
    learned = learned[:QUESTIONS]
    with (
        console.status("Starting the embedded server, the API and a worker"),
        Stack(data_root, state_dir=home / "state") as stack,
        Client(stack.url) as client,
    ):
        jobs = [submit(client, method.name, method.spec(learned), console) for method in METHODS]
        rankings = [_rankings(client, job, learned) for job in jobs]
        report = home / "job-report.html"
        report.write_text(client.report(jobs[0].id), encoding="utf-8")
    words = by_words(rows, learned)
    lines: list[tuple[Found, Job | None]] = []
    for method, job, (plain, relative) in zip(METHODS, jobs, rankings, strict=True):
        lines.append((places(method.name, plain, learned), job))
        lines.append((places("  relative to self-influence", relative, learned), None))
    lines.append((places("BM25", words, learned), None))
    wide = wide_console()
    wide.print(answers(METHODS[0].name, rows, learned, rankings[0][0], words))
    wide.print(figures(len(learned), lines))
    console.print(f"The first job's own report: {report}")
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


def _rankings(client: Client, job: Job, asked: Sequence[Question]) -> tuple[list[Ranking], list[Ranking]]:
    """For every question, by influence and by relative influence."""
    with_itself = {row.id: row.score for row in client.scores(job.id, vector=SELF_INFLUENCE)}
    scores = [client.scores(job.id, validation_id=question.id) for question in asked]
    return list(map(by_influence, scores)), [by_relative_influence(each, with_itself) for each in scores]


if __name__ == "__main__":
    sys.exit(main())
