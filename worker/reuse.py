"""What a job leaves for the next: the curvature of every block and the solver's state, in the workers' store.

    curvature/<hash of train gradients and kind>/block-00000.safetensors
    solution/<hash of curvature, damping, solver and seed>/block-00000.safetensors

A job with another damping finds the curvature, one with another validation set the state too; each value of a damping
path has an entry of its own, under the larger values, from whose states it came. What a job finds has the bits
it would compute, so that a score does not depend on what was there; what is damaged is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ascribe.errors import NoRoom, StorageFailed
from ascribe.fingerprint import curvature_fingerprint, solution_fingerprint
from ascribe.result import Reuse
from ascribe.spec import JobSpec
from ascribe.store import Damaged, Store
from worker.curvature.block import CurvatureBlock
from worker.curvatures.base import Curvatures
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
        self.found = self._damaged = 0

    def find(self, block: int) -> Saved | None:
        """What an earlier job left for this block, whole; its tensors are views into the file.

        Raises:
            StorageFailed: the store that machines share fails.
        """
        if self._folder is None:
            return None
        path = self._path(self._folder, block)
        try:
            facts = self._store.files.facts(path)
            if facts is None:
                return None
            tensors = load_file(path)
        except NoRoom as full:
            self._refusal = full.detail
            return None
        except (Damaged, OSError, SafetensorError):
            self._damaged += 1
            return None
        self.found += 1
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
        return Reuse(reused=self.found, of=self._blocks, keeps=keeps)

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
    """A solver's state and the damping it belongs to: what a relative one came to be on this curvature.

    ``of_this_curvature`` is not so where a job starts from the state of another one with other train rows.
    """

    damping: float
    state: Saved
    of_this_curvature: bool


class Shelf:
    """The entries that one job takes from and fills: its curvature, and the states at every damping of its path."""

    def __init__(
        self, keys: ShelfKeys, solver: Solver[Any], curvature: Kept, solutions: Sequence[Kept], earlier: Kept | None
    ) -> None:
        self._keeps = solver.keeps if isinstance(solver, Reusable) else None
        self._facts = {"curvature": keys.curvature, "solver": type(solver).__name__}
        self._curvature, self._solutions, self._earlier = curvature, solutions, earlier
        self._starts = 0

    def curvature(self, index: int, curvatures: Curvatures) -> CurvatureBlock:
        """The block's curvature, kept or built. Raises NonFinite."""
        saved = self._curvature.find(index)
        if saved is not None:
            return curvatures.load(index, saved)
        built = curvatures.build(index)
        self._curvature.keep(index, curvatures.save(built))
        return built

    def state(self, block: int, value: int = 0) -> KeptState | None:
        """The solver's state for the block at a value of the damping path, if an earlier job left it."""
        saved = self._solutions[value].find(block)
        return None if saved is None else self._kept_state(saved)

    @property
    def has_earlier(self) -> bool:
        """Whether the job asked to start from another one's states."""
        return self._earlier is not None

    def earlier_state(self, block: int) -> KeptState | None:
        """The state that another job left, which this one asked to start from, if the same solver left it."""
        saved = None if self._earlier is None else self._earlier.find(block)
        if saved is None or saved.facts.get("solver") != self._facts["solver"]:
            return None
        self._starts += 1
        return self._kept_state(saved)

    def keep_state(self, block: int, damping: float, state: Saved, value: int = 0) -> None:
        self._solutions[value].keep(
            block, Saved(state.tensors, {**self._facts, "damping": damping, "state": state.facts})
        )

    def _kept_state(self, saved: Saved) -> KeptState:
        state = Saved(saved.tensors, saved.facts["state"])
        return KeptState(saved.facts["damping"], state, saved.facts.get("curvature") == self._facts["curvature"])

    def reused(self) -> dict[str, Reuse]:
        nothing = "nothing: this solver computes anew for every question"
        return {
            CURVATURE: self._curvature.use("the curvature of a block"),
            SOLUTION: self._solutions[0].use(self._keeps or nothing),
        }

    def warnings(self) -> tuple[str, ...]:
        said = [*self._curvature.warnings(CURVATURE)]
        if self._earlier is not None and self._starts == 0:
            said.append("no inverse is kept here under solver.warm_start: the iteration started from nothing")
        for solution in self._solutions:
            said += solution.warnings(SOLUTION)
        return tuple(dict.fromkeys(said))


@dataclass(frozen=True, slots=True)
class ShelfKeys:
    """Where a job finds its curvature, and its states: one a value of the damping path."""

    curvature: str
    solutions: tuple[str, ...]
    earlier: str | None

    @classmethod
    def of(cls, spec: JobSpec, curvatures: Curvatures, gradient_fingerprint: str) -> ShelfKeys:
        curvature = curvature_fingerprint(gradients=gradient_fingerprint, curvature=curvatures.key)
        solver = spec.solver.model_dump()
        solutions = tuple(
            solution_fingerprint(curvature=curvature, damping=damping, solver=solver, seed=spec.seed)
            for damping in _prefixes(spec)
        )
        return cls(curvature, solutions, solver.get("warm_start"))


def _prefixes(spec: JobSpec) -> list[dict[str, Any] | None]:
    """For each value of the path, it and the larger ones: the largest has what a job with that value alone has."""
    if spec.damping is None:
        return [None]
    form, factors = spec.damping.form, spec.damping.factors
    return [{form: sorted((other for other in factors if other >= factor), reverse=True)} for factor in factors]


@contextmanager
def open_shelf(store: Store, keys: ShelfKeys, solver: Solver[Any], *, blocks: int) -> Iterator[Shelf]:
    """The entries of a job; nobody removes them meanwhile.

    Raises:
        StorageFailed: an entry's folder cannot be made.
    """
    with ExitStack() as pins:

        def kept(kind: str, key: str) -> Kept:
            return Kept(store, pins.enter_context(store.open(kind, key)), blocks)

        reusable = isinstance(solver, Reusable)
        yield Shelf(
            keys,
            solver,
            kept(CURVATURE, keys.curvature),
            [kept(SOLUTION, key) if reusable else Kept(store, None, blocks) for key in keys.solutions],
            None if keys.earlier is None else kept(SOLUTION, keys.earlier),
        )
