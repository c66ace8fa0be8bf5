"""A job's results on their way into the ledger and the store, under the attempt's fence."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import stamina

from ascribe.errors import QueueUnavailable, StorageFailed
from ascribe.ledger.base import Claim, Ledger
from ascribe.result import StoredVectors
from ascribe.results.columns import Columns
from ascribe.results.files import file_name, open_results
from ascribe.results.sweep import is_result
from ascribe.settings import WorkerSettings
from ascribe.store import storage_errors

log = logging.getLogger(__name__)

STALE_SECONDS = 86400.0
_PREFIX = ".results-"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Insist:
    """Asks the ledger again while Redis is away, up to the lease; the work of hours must not die of a restart."""

    lease_seconds: float

    def __call__(self, ask: Callable[[], T]) -> T:
        return stamina.RetryingCaller(timeout=self.lease_seconds, attempts=None)(QueueUnavailable, ask)


@dataclass(slots=True)
class Staging:
    """The sink of a worker: see :class:`worker.pipeline.Sink`.

    To be committed within its ``with`` block: a file that did not become the job's result is removed at its end.
    """

    claim: Claim
    ledger: Ledger
    insist: Insist
    settings: WorkerSettings
    _file: str | None = None

    def stage(self, name: str, chunks: Iterable[bytes]) -> None:
        held = list(chunks)
        self.insist(lambda: self.ledger.stage(self.claim, name, held))

    def spill(self, columns: Columns) -> StoredVectors | None:
        if columns.bytes <= self.settings.max_redis_result_bytes:
            return None
        from ascribe.results.writing import write  # here alone: pyarrow is large

        name = file_name(self.claim.job_id, self.claim.fence)
        with storage_errors(), _folder_in(self.settings.cache_dir) as folder:
            stored = write(columns, folder / name)
            self._file = name
            open_results(self.settings).put(folder / name, name)
        log.info("vectors stored as a file", extra={"bytes": stored.bytes, "vectors": len(columns.names)})
        return stored

    def announce(self, gradient_fingerprint: str, rows: int) -> None:
        self.insist(lambda: self.ledger.announce_gradients(gradient_fingerprint, rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or isinstance(error, QueueUnavailable):
            return  # a commit without an answer may have been one: the sweep will ask
        try:
            if not is_result(self.ledger, self.claim.job_id, self._file):
                open_results(self.settings).delete(self._file)
        except (QueueUnavailable, StorageFailed) as failure:
            log.warning("a file of vectors is left to the sweep", extra={"detail": failure.detail})


@contextmanager
def _folder_in(parent: Path) -> Iterator[Path]:
    """A folder for the time of the block. What a killed process left is removed after a day."""
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as folder:
        yield Path(folder)
