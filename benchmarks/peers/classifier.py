"""The demo's classifier through dattri, kronfluence and ours: seconds, memory, and how far the scores agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.peers.environment import run_script, versions
from benchmarks.peers.exchange import NEW_VALIDATION, TRAIN, VALIDATION, Exchange, copy_folder
from benchmarks.peers.lds import Array, rank_correlations
from benchmarks.peers.service import Asked, service
from benchmarks.subject import demo_subject
from examples.demo.corpus import TOPICS

MIB = 2**20
DATAINF_DAMPING = 1e-5
"""The middle of what a tenth of the mean squared gradient entry is on these 24 blocks; dattri has one for all."""
WARMING = "warming"
WARMING_ROWS = 16
QUERIES, TOKENS = 16, 32


@dataclass(frozen=True, slots=True)
class Match:
    """A method of a peer, and ours that is the same or the nearest."""

    peer: str
    script: str
    arguments: tuple[str, ...]
    ours: str
    spec: Mapping[str, Any]
    goal: float | None


MATCHES = (
    Match(
        "dattri, gradient product", "run_dattri", ("product",),
        "none + identity", {"curvature": {"kind": "none"}, "solver": {"kind": "identity"}}, 0.999,
    ),
    Match(
        "dattri, DataInf", "run_dattri", ("datainf", "--damping", f"{DATAINF_DAMPING:g}"),
        "empirical_fisher + datainf",
        {
            "curvature": {"kind": "empirical_fisher"},
            "solver": {"kind": "datainf"},
            "damping": {"absolute": DATAINF_DAMPING},
        },
        0.99,
    ),
    Match(
        "kronfluence, EK-FAC", "run_kronfluence", ("ekfac",),
        "ekfac + eigenbasis", {"curvature": {"kind": "ekfac"}, "solver": {"kind": "eigenbasis"}}, None,
    ),
)  # fmt: skip


def compare(folder: Path, *, quick: bool) -> Iterator[Table]:
    """A table for each number of train rows."""
    for rows in (24,) if quick else (200, 1000):
        yield _compare(folder / f"classifier-{rows}", rows)


def _compare(folder: Path, rows: int) -> Table:
    exchange = _exchange(folder, rows)
    ours = cell(folder / "ours.json", lambda: _ours(exchange))
    result = table(
        f"MiniLM + LoRA r=8, {rows} train x {QUERIES} validation rows of {TOKENS} tokens and more",
        "peer", "ours", "Spearman, mean (least)", "goal", "their first", "ours, warm", "ratio", "goal",
        "their new validation set", "ours", "ours / ours, first", "goal", "their peak", "our worker's",
    )  # fmt: skip
    seen = [ours]
    for match in MATCHES:
        theirs = cell(folder / f"{slug(match.peer)}.json", lambda match=match: _theirs(exchange, match))  # type: ignore[misc]
        seen.append(theirs)
        result.add_row(*_line(match, theirs, ours[match.ours], exchange))
    result.caption = f"seconds of the processor (of the clock); {seen_on(seen)}; {seen[-1]['versions']}"
    return result


def _exchange(folder: Path, rows: int) -> Exchange:
    subject = demo_subject(progress=False)
    exchange = Exchange(folder, "base", "adapter", TOPICS)
    if not (folder / f"{TRAIN}.jsonl").exists():
        copy_folder(subject.data_root / subject.base, folder / "base")
        copy_folder(subject.data_root / subject.adapter, folder / "adapter")
        exchange.write_facts()
        sizes = ((NEW_VALIDATION, QUERIES), (VALIDATION, QUERIES), (WARMING, WARMING_ROWS), (TRAIN, rows))
        for name, count in sizes:
            exchange.write_rows(name, list(subject.long_rows(name, count, TOKENS)))
    return exchange


def _theirs(exchange: Exchange, match: Match) -> Cell:
    return run_script(match.script, exchange.folder, match.arguments[0], slug(match.peer), *match.arguments[1:]) | {
        "versions": versions()
    }


def _ours(exchange: Exchange) -> Cell:
    """Each method in a stack of its own, so that none finds what another left."""
    return {match.ours: _asked(exchange, match) for match in MATCHES}


def _asked(exchange: Exchange, match: Match) -> Cell:
    """On a worker that has the model and has done a job on other rows, as it is after its first minute."""
    with service(exchange.folder) as ours:
        cold = ours.ask(exchange.spec(dict(match.spec), train=WARMING, validation=WARMING))
        first = ours.ask(exchange.spec(dict(match.spec)))
        second = ours.ask_again(first.job, NEW_VALIDATION)
    exchange.save_scores(f"ours-{slug(match.ours)}", first.score_QN)
    exchange.save_scores(f"ours-{slug(match.ours)}-new", second.score_QN)
    return {"cold": _seconds(cold), "first": _seconds(first), "second": _seconds(second), "peak_bytes": _peak(second)}


def _seconds(asked: Asked) -> dict[str, float]:
    return {"clock": asked.seconds, "processor": asked.processor_seconds}


def _peak(asked: Asked) -> int:
    assert asked.job.result is not None
    return asked.job.result.diagnostics.peak_memory_bytes


def _line(match: Match, theirs: Cell, ours: Cell, exchange: Exchange) -> Iterator[str]:
    agreements = [
        _agreement(exchange, f"{slug(match.peer)}{which}", f"ours-{slug(match.ours)}{which}") for which in ("", "-new")
    ]
    agreement = [each for pair in agreements for each in pair]
    whole = {
        unit: sum(theirs[key][step] for step in ("import", "load", "first"))
        for unit, key in (("processor", "processor_seconds"), ("clock", "seconds"))
    }
    again = {"processor": theirs["processor_seconds"]["second"], "clock": theirs["seconds"]["second"]}
    yield match.peer
    yield match.ours
    yield f"{mean(agreement):.5f} ({min(agreement):.5f})"
    yield "-" if match.goal is None else f"≥ {match.goal}"
    yield _told(whole)
    yield _told(ours["first"])
    yield f"{ours['first']['processor'] / whole['processor']:.2f}"
    yield "≤ 0.5"
    yield _told(again)
    yield _told(ours["second"])
    yield f"{ours['second']['processor'] / ours['first']['processor']:.2f}"
    yield "≤ 0.1"
    yield f"{theirs['peak_bytes'] / MIB:.0f} MiB"
    yield f"{ours['peak_bytes'] / MIB:.0f} MiB"


def _told(seconds: Mapping[str, float]) -> str:
    return f"{seconds['processor']:.1f} s ({seconds['clock']:.1f})"


def _agreement(exchange: Exchange, theirs: str, ours: str) -> list[float]:
    correlation_Q: Array = rank_correlations(exchange.scores(theirs), exchange.scores(ours))
    return [float(each) for each in correlation_Q]
