"""The demo's five ways of asking, and the spec each of them is submitted as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from examples.demo.finetune import ADAPTER, BASE, ROWS


@dataclass(frozen=True, slots=True)
class Method:
    """One curvature with one solver. ``output`` overrides the spec's."""

    curvature: str
    solver: str
    output: tuple[tuple[str, bool], ...] = ()

    @property
    def name(self) -> str:
        return self.solver if self.curvature == "none" else f"{self.curvature} + {self.solver}"

    def spec(self) -> dict[str, Any]:
        return {
            "name": f"demo: {self.name}",
            "labels": {"demo": "topics"},
            "model": {"task": "sequence-classification", "base": BASE, "adapter": ADAPTER},
            "train": {"source": {"kind": "file", "path": f"{ROWS}/train.jsonl"}},
            "validation": {"source": {"kind": "file", "path": f"{ROWS}/validation.jsonl"}},
            "curvature": {"kind": self.curvature},
            "solver": {"kind": self.solver},
            "output": dict(self.output),
        }


METHODS = (
    Method("gfim", "schulz"),
    Method("gfim", "cholesky"),
    Method("empirical_fisher", "datainf"),
    # The mean over the validation rows is one right-hand side: the ranking is all this table needs.
    Method("empirical_fisher", "lissa", (("per_validation_row", False),)),
    Method("none", "identity"),
)
