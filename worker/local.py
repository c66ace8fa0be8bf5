"""A job run here and now, without a server: from a spec to its manifest and vectors, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ascribe.job import Progress
from ascribe.result import Manifest, validation_vector
from ascribe.results.columns import Columns
from ascribe.spec import JobSpec
from worker.pipeline import Bench, run
from worker.progress import Reporter
from worker.sharing import Alone


@dataclass(frozen=True, slots=True)
class LocalResult:
    """``vectors`` are float32 ``[N]``, by the names that the manifest lists."""

    manifest: Manifest
    vectors: dict[str, Tensor]

    def scores(self) -> Tensor:
        """``score_QN`` by validation row. Raises KeyError: the spec asked for their mean alone."""
        return torch.stack([self.vectors[validation_vector(q)] for q in range(self.manifest.validation_rows)])


@dataclass(frozen=True, slots=True)
class _Kept:
    """A sink in memory."""

    staged: dict[str, bytearray] = field(default_factory=dict)

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        self.staged[name] = bytearray(b"".join(chunks))

    def spill(self, columns: Columns) -> None:
        """All vectors are staged."""

    def announce(self, gradient_fingerprint: str, rows: int) -> None:
        """There is no API here that would offer queries on them."""


def run_locally(spec: JobSpec, bench: Bench) -> LocalResult:
    """Do the job in this process. Gradients are kept in ``bench``'s cache, as a worker's are.

    Raises:
        AscribeError: see :func:`worker.pipeline.run`.
    """
    kept = _Kept()
    manifest = run(spec, bench, Reporter(_unwatched), kept, Alone())
    vectors = {name: torch.frombuffer(kept.staged[name], dtype=torch.float32) for name in manifest.vectors}
    return LocalResult(manifest, vectors)


def _unwatched(_: Progress) -> bool:
    return False
