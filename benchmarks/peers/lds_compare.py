"""LDS of our methods and the peers' on the same subsets and retrainings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.cells import Cell, cell, seen_on, slug, table
from benchmarks.peers.environment import run_script
from benchmarks.peers.exchange import Exchange
from benchmarks.peers.lds import Array, draw_subsets, lds, membership, rank_correlations
from benchmarks.peers.lds_retrain import retrain, seed_agreement
from benchmarks.peers.lds_tasks import lds_tasks
from benchmarks.peers.retraining import Retrained
from benchmarks.peers.service import Service, service

OURS: dict[str, dict[str, Any]] = {
    "none": {"curvature": {"kind": "none"}, "solver": {"kind": "identity"}},
    "gfim": {"curvature": {"kind": "gfim"}, "solver": {"kind": "cholesky"}},
    "empirical_fisher, datainf": {"curvature": {"kind": "empirical_fisher"}, "solver": {"kind": "datainf"}},
    "empirical_fisher": {"curvature": {"kind": "empirical_fisher"}, "solver": {"kind": "cholesky"}},
    "ekfac": {"curvature": {"kind": "ekfac"}, "solver": {"kind": "eigenbasis"}},
    "gauss_newton": {"curvature": {"kind": "gauss_newton"}, "solver": {"kind": "auto"}},
}
DATAINF_DAMPING = "1e-5"
PEERS: dict[str, tuple[str, ...]] = {
    "kronfluence, EK-FAC": ("run_kronfluence", "ekfac"),
    "dattri, gradient product": ("run_dattri", "product"),
    "dattri, DataInf": ("run_dattri", "datainf", "--damping", DATAINF_DAMPING),
}
LOSS = "training loss"


def compare(folder: Path, *, quick: bool) -> Iterator[Table]:
    """A table for each task."""
    for task in lds_tasks(folder / "lds", quick=quick):
        yield _compare(task)


def _compare(task: Retrained) -> Table:
    exchange = task.prepare()
    rows = len(task.corpus.train)
    subsets = draw_subsets(rows, task.subsets)
    loss_MQ, inside_MN = retrain(task, subsets, task.folder), membership(subsets, rows)
    result = table(
        f"{task.name}: {rows} train x {len(task.corpus.validation)} validation rows, {task.subsets} halves, "
        f"{task.seeds} trainings of each",
        "method", "LDS", "95 %",
    )  # fmt: skip
    seen = []
    scores = {}
    ours = cell(task.folder / "ours.json", partial(_ours, exchange))
    seen.append(ours)
    for name in OURS:
        scores[f"ours, {name}"] = exchange.scores(f"ours-{slug(name)}")
    for name in PEERS:
        seen.append(cell(task.folder / f"{slug(name)}.json", partial(_peer, exchange, name)))
        scores[name] = exchange.scores(slug(name))
    loss_N = np.array(ours["train_loss"])
    # What is learned badly is left out with profit or loss for all validation rows alike.
    scores[LOSS] = np.repeat(-loss_N[None], len(task.corpus.validation), axis=0)
    for name, score_QN in scores.items():
        found = lds(score_QN, inside_MN, loss_MQ)
        result.add_row(name, f"{found.mean:.3f}", f"{found.low:.3f} to {found.high:.3f}")
    result.caption = f"{_bound(task)}{seen_on(seen)}"
    return result


def _bound(task: Retrained) -> str:
    if task.seeds < 2:
        return ""
    by_seed = seed_agreement(task.folder, task.subsets)
    agreement: Array = rank_correlations(by_seed[0].T, by_seed[1].T)
    return f"two trainings on the same rows agree to {agreement.mean():.3f}; "


def _ours(exchange: Exchange) -> Cell:
    with service(exchange.folder) as ascribe:
        for name, method in OURS.items():
            exchange.save_scores(f"ours-{slug(name)}", ascribe.ask(exchange.spec(dict(method))).score_QN)
        return {"train_loss": _train_loss(ascribe, exchange)}


def _train_loss(ascribe: Service, exchange: Exchange) -> list[float]:
    job = ascribe.client.create_and_wait(exchange.spec(dict(OURS["none"])))
    return [row.score for row in ascribe.client.iter_scores(job.id, vector="train_loss", order="row")]


def _peer(exchange: Exchange, name: str) -> Cell:
    script, method, *options = PEERS[name]
    return run_script(script, exchange.folder, method, slug(name), *options, "--once")
