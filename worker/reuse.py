"""What a job leaves for the next: the curvature of every block and the solver's state, in the workers' store.

    curvature/<hash of train gradients and kind>/block-00000.safetensors
    solution/<hash of curvature, damping, solver and seed>/block-00000.safetensors

A job with another damping finds the curvature, one with another validation set the state too. What it finds has the
bits it would compute, so that a score does not depend on what was there; what is damaged is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ascribe.errors import StorageFailed
from ascribe.fingerprint import curvature_fingerprint, solution_fingerprint
from ascribe.result import Reuse
from ascribe.sources.checkpoints import BlockShape
from ascribe.spec import JobSpec
from ascribe.store import Damaged, Store
from worker.curvature.block import CurvatureBlock, CurvatureKind, build_block, load_block, save_block
from worker.saved import Saved
from worker.solvers.base import Reusable, Solver
from worker.storage import storage_errors, write_tensors

CURVATURE, SOLUTION = "curvature", "solution"
FILES_AHEAD = 8
"""Room is made for so many files at once: each time the whole store is looked through."""


class Kept:
    """One entry of the store with a file a block, pinned for the length of a job; counts what it gave.

    Without a folder it gives nothing and keeps nothing.
    """

    def __init__(self, store: Store, folder: Path | None, blocks: int) -> None:
        self._store, self._folder, self._blocks = store, folder, blocks
        self._room = 0
        self._refusal: str | None = None
        self._found = self._damaged = 0

    def find(self, block: int) -> Saved | None:
        """What an earlier job left for this block, whole; its tensors are views into the file."""
        if self._folder is None:
            return None
        path = self._path(self._folder, block)
        try:
            facts = self._store.files.facts(path)
            if facts is None:
                return None
            tensors = load_file(path)
        except (Damaged, OSError, SafetensorError):
            self._damaged += 1
            return None
        self._found += 1
        return Saved(tensors, facts["facts"])

    def keep(self, block: int, saved: Saved) -> None:
        """Leave it for later jobs. A store that has no room for it costs them time, and this job nothing."""
        if self._folder is None or self._refusal is not None:
            return
        path = self._path(self._folder, block)
        try:
            self._make_room(sum(tensor.nbytes for tensor in saved.tensors.values()))
            with storage_errors():
                self._store.files.save(
                    path, lambda temporary: write_tensors(temporary, saved.tensors), {"facts": saved.facts}
                )
        except StorageFailed as failed:
            self._refusal = failed.detail

    def use(self, keeps: str) -> Reuse:
        """What came of it; ``keeps`` says what the entry holds, in words."""
        return Reuse(reused=self._found, of=self._blocks, keeps=keeps)

    def warnings(self, kind: str) -> tuple[str, ...]:
        """What went wrong with the store, in words."""
        said = []
        if self._damaged:
            said.append(f"{self._damaged} kept {kind} file(s) were damaged; they were computed again")
        if self._refusal is not None:
            said.append(f"the {kind} could not be kept for later jobs: {self._refusal}")
        return tuple(said)

    def _make_room(self, bytes_needed: int) -> None:
        if bytes_needed > self._room:
            self._room = bytes_needed * min(FILES_AHEAD, self._blocks)
            self._store.make_room(self._room)
        self._room -= bytes_needed

    @staticmethod
    def _path(folder: Path, block: int) -> Path:
        return folder / f"block-{block:05d}.safetensors"


@dataclass(frozen=True, slots=True)
class KeptState:
    """A solver's state and the damping it belongs to: what a relative one came to be on this curvature."""

    damping: float
    state: Saved


class Shelf:
    """The two entries that one job takes from and fills."""

    def __init__(self, curvature: Kept, solution: Kept, keeps: str | None) -> None:
        self._curvature, self._solution, self._keeps = curvature, solution, keeps

    def curvature(self, block: int, shape: BlockShape, kind: CurvatureKind, chunks: Sequence[Tensor]) -> CurvatureBlock:
        """The block's curvature, kept or built. Raises NonFinite."""
        name, rank, long_side = shape.name, shape.rank, shape.long_side
        saved = self._curvature.find(block)
        if saved is not None:
            return load_block(name, kind, chunks, rank, long_side, saved)
        built = build_block(name, kind, chunks, rank, long_side)
        self._curvature.keep(block, save_block(built))
        return built

    def state(self, block: int) -> KeptState | None:
        """The solver's state for the block, if an earlier job left it."""
        saved = self._solution.find(block)
        return None if saved is None else KeptState(saved.facts["damping"], Saved(saved.tensors, saved.facts["state"]))

    def keep_state(self, block: int, kept: KeptState) -> None:
        facts = {"damping": kept.damping, "state": kept.state.facts}
        self._solution.keep(block, Saved(kept.state.tensors, facts))

    def reused(self) -> dict[str, Reuse]:
        nothing = "nothing: this solver computes anew for every question"
        return {
            CURVATURE: self._curvature.use("the curvature of a block"),
            SOLUTION: self._solution.use(self._keeps or nothing),
        }

    def warnings(self) -> tuple[str, ...]:
        return self._curvature.warnings(CURVATURE) + self._solution.warnings(SOLUTION)


@contextmanager
def open_shelf(
    store: Store, spec: JobSpec, solver: Solver[Any], *, gradient_fingerprint: str, blocks: int
) -> Iterator[Shelf]:
    """The entries of a job on these train gradients; nobody removes them meanwhile.

    Raises:
        StorageFailed: an entry's folder cannot be made.
    """
    curvature_key = curvature_fingerprint(gradients=gradient_fingerprint, curvature=spec.curvature.model_dump())
    solution_key = solution_fingerprint(
        curvature=curvature_key,
        damping=None if spec.damping is None else spec.damping.model_dump(),
        solver=spec.solver.model_dump(),
        seed=spec.seed,
    )
    keeps = solver.keeps if isinstance(solver, Reusable) else None
    with ExitStack() as pins:
        curvature = pins.enter_context(store.open(CURVATURE, curvature_key))
        solution = None if keeps is None else pins.enter_context(store.open(SOLUTION, solution_key))
        yield Shelf(Kept(store, curvature, blocks), Kept(store, solution, blocks), keeps)
