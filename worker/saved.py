"""What a curvature or a solver's state is between two jobs: tensors, and a few facts that JSON holds exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Saved:
    """``facts`` are numbers, strings, lists and dicts of them: a float comes back from JSON to the last bit."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Row-major; read back they are views into a file."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def tensor(self, name: str) -> Tensor:
        """A copy in memory of its own: aligned like a fresh one, so that products with it round the same way."""
        return self.tensors[name].clone()
