"""The demo's ways of asking, and the spec each of them is submitted as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from examples.demo_llm.corpus import completion_of, prompt_of
from examples.demo_llm.finetune import ADAPTER, BASE, TRAIN
from examples.demo_llm.questions import Question


@dataclass(frozen=True, slots=True)
class Method:
    """One curvature with one solver, all else as the service has it."""

    name: str
    curvature: str
    solver: str

    def spec(self, asked: Sequence[Question]) -> dict[str, Any]:
        """``asked`` becomes validation rows: every question with the answer that the model gave."""
        return {
            "name": f"demo-llm: {self.name}",
            "labels": {"demo": "dialogue"},
            "model": {"task": "causal-lm", "base": BASE, "adapter": ADAPTER},
            "train": {"source": {"kind": "file", "path": TRAIN}},
            "validation": {
                "source": {
                    "kind": "inline",
                    "rows": [
                        {
                            "id": question.id,
                            "prompt": prompt_of(question.text),
                            "completion": completion_of(question.answer),
                        }
                        for question in asked
                    ],
                }
            },
            "curvature": {"kind": self.curvature},
            "solver": {"kind": self.solver},
            "output": {"self_influence": True},
        }


METHODS = (
    Method("gfim + cholesky", "gfim", "cholesky"),
    Method("datainf", "empirical_fisher", "datainf"),
    Method("gradient products", "none", "identity"),
)
