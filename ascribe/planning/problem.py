"""What is to be solved, as far as a spec and the shapes tell, and what follows for the spectrum of each block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ascribe.sources.checkpoints import BlockShape

DampingForm = Literal["relative", "relative_to_largest", "absolute"]

_ASSUMED_RELATIVE = 0.1
# The trace in largest eigenvalues, where the damping is a multiple of those.
_ASSUMED_STABLE_RANK = 20


@dataclass(frozen=True)
class Problem:
    """A job in numbers. ``damping`` is ``None`` for curvature ``none`` alone."""

    curvature: str
    blocks: tuple[BlockShape, ...]
    train_rows: int
    columns: int
    """Gradients to solve for: the validation rows and their mean, or the mean alone."""
    classes: int
    damping: tuple[DampingForm, float] | None
    tolerance: float
    self_influence: bool = False
    rows_cached: bool = True
    """Of ``gauss_newton``: its rows lie on disk; otherwise every product runs the model."""
    memory_bytes: int | None = None
    """What a solve may take on top of the gradients."""

    @property
    def assumption(self) -> str | None:
        """What had to be assumed of the spectrum, in words."""
        if self.damping is not None and self.damping[0] == "absolute":
            return f"an absolute damping is taken for {_ASSUMED_RELATIVE} of the mean eigenvalue: nothing is known yet"
        return None

    def systems(self) -> tuple[System, ...]:
        """The linear systems, a block each; the Gauss-Newton Hessian is one over all blocks."""
        if self.curvature == "gauss_newton":
            size = sum(block.size for block in self.blocks)
            rows = self.train_rows * (self.classes - 1)
            return (self._system(size, self.columns, self.train_rows, rows, size),)
        if self.curvature in ("gfim", "gfim_unnormalized"):
            return tuple(
                # The unnormalized form has R times the trace, but the damping that goes with the normalized one.
                self._system(
                    block.long_side,
                    self.columns * block.rank,
                    self.train_rows * block.rank,
                    None,
                    block.long_side * (block.rank if self.curvature == "gfim_unnormalized" else 1),
                )
                for block in self.blocks
            )
        sizes = (block.size for block in self.blocks)
        return tuple(self._system(size, self.columns, self.train_rows, self.train_rows, size) for size in sizes)

    def _system(self, size: int, columns: int, train_columns: int, rows: int | None, eigenvalues: int) -> System:
        """``eigenvalues`` is the trace over what a relative damping is a multiple of."""
        tail, largest = self._spectrum(min(size, rows or size), eigenvalues)
        return System(size, columns, train_columns, rows, largest, tail)

    def _spectrum(self, rank: int, eigenvalues: int) -> tuple[float, float]:
        """``tr C / damping`` and the largest eigenvalue over it: bounds, but for the assumptions named above."""
        assert self.damping is not None, "curvature 'none' has no spectrum"
        form, value = self.damping
        if form == "relative_to_largest":
            return min(rank, _ASSUMED_STABLE_RANK) / value, 1 / value
        # No eigenvalue exceeds the trace.
        tail = eigenvalues / (_ASSUMED_RELATIVE if form == "absolute" else value)
        return tail, tail


@dataclass(frozen=True)
class System:
    """``A X = V`` with ``A``, ``[size, size]``, held in memory, or where ``rows`` is set known by that many rows."""

    size: int
    columns: int
    train_columns: int
    """Right-hand sides of the self-influence of all train rows."""
    rows: int | None
    largest: float
    """A bound on the largest eigenvalue over the damping."""
    tail: float
    """The trace over the damping."""

    @property
    def condition(self) -> float:
        """A bound."""
        return 1 + self.largest

    @property
    def rank(self) -> int:
        """A bound on the rank of what is damped."""
        return min(self.size, self.rows or self.size)
