"""Uploaded datasets on disk: content-addressed, each a folder that appears and goes as a whole.

    <uploads>/<tenant>/<sha256>/rows.<format>     the bytes as they came
    <uploads>/<tenant>/<sha256>/dataset.json      what is in them

The service writes, the worker reads: both must see the same folder, or the store that machines share
(:mod:`ascribe.sources.shared_uploads`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from ascribe.errors import StorageFailed
from ascribe.settings import Settings
from ascribe.sources.reading import DataFile, Format

STALE_SECONDS = 86400
RECORD = "dataset.json"


class Uploads:
    """The datasets of one tenant. Ids are checked by whoever takes them from outside."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.uploads_dir.resolve() / settings.tenant

    def file(self, dataset_id: str) -> DataFile | None:
        """The rows of a dataset, or None where there is none of this id."""
        folder = self._folder(dataset_id)
        paths = ((folder / f"rows.{format_}", format_) for format_ in get_args(Format))
        return next((DataFile(path, format_) for path, format_ in paths if path.is_file()), None)

    def record(self, dataset_id: str) -> bytes | None:
        """What was kept beside the rows."""
        try:
            return (self._folder(dataset_id) / RECORD).read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """An empty folder for a dataset that is being received; gone in the end, unless it was kept."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        folder = Path(tempfile.mkdtemp(dir=self._root, prefix=".incoming-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, incoming: Path, dataset_id: str, record: bytes) -> bool:
        """Put the folder in its place, with ``record``. False where the dataset is there already."""
        (incoming / RECORD).write_bytes(record)
        return self._place(incoming, dataset_id)

    def delete(self, dataset_id: str) -> bool:
        """False where there is none. A worker that is reading it reads on."""
        with self.incoming() as grave:
            try:
                self._folder(dataset_id).rename(grave / "deleted")
            except FileNotFoundError:
                return False
        return True

    def _place(self, incoming: Path, dataset_id: str) -> bool:
        for path in incoming.iterdir():
            _sync(path)
        incoming.chmod(0o755)  # a worker may be another user
        try:
            incoming.rename(self._folder(dataset_id))
        except OSError:
            if not self._folder(dataset_id).is_dir():
                raise
            return False
        _sync(self._root)
        return True

    def _folder(self, dataset_id: str) -> Path:
        return self._root / dataset_id.removeprefix("ds_")

    def _sweep(self) -> None:
        """Remove what a service that was killed while receiving has left."""
        for folder in self._root.glob(".incoming-*"):
            if unchanged_for(folder, STALE_SECONDS):
                shutil.rmtree(folder, ignore_errors=True)


def unchanged_for(folder: Path, seconds: float) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > seconds
    except FileNotFoundError:
        return False


@contextmanager
def uploads_errors() -> Iterator[None]:
    """What the operating system says of the folder, as StorageFailed."""
    try:
        yield
    except OSError as error:
        raise StorageFailed("the uploads directory cannot be written: check its disk space and rights") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
