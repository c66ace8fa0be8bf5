"""The retrainings of an LDS task: a file a subset, so that what was interrupted goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.cells import Cell, cell
from benchmarks.peers.lds import Array
from benchmarks.peers.retraining import Retrained


def retrain(task: Retrained, subsets: list[list[int]], folder: Path) -> Array:
    """The validation rows' losses after training on each subset, mean over the seeds, ``[M, Q]``."""
    cells = [
        cell(folder / "subsets" / f"{place:03d}.json", lambda subset=subset: _losses(task, subset))  # type: ignore[misc]
        for place, subset in enumerate(subsets)
    ]
    return np.array([np.mean(each["losses"], axis=0) for each in cells])


def seed_agreement(folder: Path, count: int) -> Array:
    """Losses by seed, ``[S, M, Q]``: how far two trainings on the same rows agree bounds what any method can reach."""
    paths = [folder / "subsets" / f"{place:03d}.json" for place in range(count)]
    return np.array([cell(path, _missing)["losses"] for path in paths]).swapaxes(0, 1)


def _losses(task: Retrained, subset: list[int]) -> Cell:
    return {"losses": [task.losses(subset, seed) for seed in range(task.seeds)]}


def _missing() -> Cell:
    raise FileNotFoundError("retrain first")
