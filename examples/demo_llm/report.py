"""The demo's tables: a few answers with the rows behind them, and how often the true source was found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ascribe.job import Job
from examples.demo_llm.corpus import Row
from examples.demo_llm.questions import Question
from examples.demo_llm.retrieval import Found, Ranking

_SHOWN, _FIRST = 8, 3
_TEXT_WIDTH = 44
_WIDTH = 4 * (_TEXT_WIDTH + 3) + 1


def wide_console() -> Console:
    """A log, or a narrow terminal, gets whole tables rather than cut ones."""
    return Console(width=max(Console().width, _WIDTH))


def answers(
    name: str, rows: Sequence[Row], asked: Sequence[Question], ours: Sequence[Ranking], words: Sequence[Ranking]
) -> Table:
    question_of = {row.id: row.question for row in rows}
    table = Table(title=f"Which rows taught it this answer? ({name}; ✓ is the true source)", title_justify="left")
    for heading in ("question", "its answer", "first three by influence", "first three by BM25"):
        table.add_column(heading, max_width=_TEXT_WIDTH, overflow="fold")
    for question, *rankings in list(zip(asked, ours, words, strict=True))[:_SHOWN]:
        found = (
            "\n".join(f"{'✓' if row == question.source.id else '·'} {question_of[row]}" for row in ranking[:_FIRST])
            for ranking in rankings
        )
        table.add_row(question.text, question.answer, *found, end_section=True)
    return table


def figures(count: int, lines: Sequence[tuple[Found, Job | None]]) -> Table:
    """``lines``: how a ranking did, and the job that it comes from if it took one of its own."""
    table = Table(title=f"The true source of {count} answers", title_justify="left")
    for heading in ("ranking", "first", "among five", "worst place", "seconds", "status"):
        table.add_column(heading, justify="left" if heading in ("ranking", "status") else "right")
    for found, job in lines:
        told = job.result.diagnostics if job and job.result else None
        table.add_row(
            found.name,
            f"{found.within(1):.0%}",
            f"{found.within(5):.0%}",
            str(max(found.places)),
            f"{told.seconds['total']:.1f}" if told else "",
            told.status.value if told else "",
        )
    return table
