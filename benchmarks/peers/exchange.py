"""The folder that both sides read: a model, the weights that are meant, and rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ascribe.spec import JobSpec

TRAIN, VALIDATION, NEW_VALIDATION = "train", "validation", "validation-new"
FACTS = "exchange.json"


@dataclass(frozen=True, slots=True)
class Exchange:
    """``folder`` is a data root of ours, too. ``modules`` are weights' modules where there is no adapter."""

    folder: Path
    base: str
    adapter: str | None
    labels: tuple[str, ...]
    select: str = "adapter"
    modules: tuple[str, ...] = ()
    max_length: int = 128

    def write_facts(self) -> None:
        """Make the folder, with what the peers' scripts must know; paths made absolute."""
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = asdict(self) | {
            "folder": None,
            "base": str((self.folder / self.base).absolute()),
            "adapter": self.adapter and str((self.folder / self.adapter).absolute()),
        }
        (self.folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")

    def write_rows(self, name: str, rows: Sequence[dict[str, str]]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")

    def spec(
        self, method: dict[str, Any], *, train: str = TRAIN, validation: str = VALIDATION, dtype: str = "float32"
    ) -> JobSpec:
        """Our job on these rows; ``method`` has curvature, solver and damping."""
        task = "causal-lm" if not self.labels else "sequence-classification"
        model = {
            "task": task,
            "base": self.base,
            "adapter": self.adapter,
            "max_length": self.max_length,
            "dtype": dtype,
        }
        rows = {
            part: {"source": {"kind": "file", "path": f"{name}.jsonl"}}
            for part, name in (("train", train), ("validation", validation))
        }
        parameters = {"select": self.select, "modules": self.modules}
        return JobSpec.model_validate({"model": model, "parameters": parameters, **rows, **method})

    def scores(self, name: str) -> NDArray[np.float64]:
        """What was saved under this name, here or by a script, ``[Q, N]``."""
        loaded: NDArray[np.float64] = np.load(self.folder / f"{name}.npy")
        return loaded

    def save_scores(self, name: str, score_QN: NDArray[np.float64]) -> None:
        np.save(self.folder / f"{name}.npy", score_QN)


def copy_folder(source: Path, target: Path) -> None:
    """Copied anew: a data root follows no link that leads out of it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
