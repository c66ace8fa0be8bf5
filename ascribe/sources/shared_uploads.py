"""Uploaded datasets in the store that machines share, each fetched into a machine's own folder when it is read.

    uploads/<sha256>/rows.<format>     the bytes as they came
    uploads/<sha256>/dataset.json      what is in them; written last and deleted first: with it the dataset is there

A folder here is a copy, of the rows alone. One with a ``dataset.json`` was uploaded before there was a shared store,
and goes there when it is first asked for.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ascribe.errors import StorageFailed
from ascribe.fingerprint import file_sha256
from ascribe.settings import Settings
from ascribe.sources.reading import DataFile
from ascribe.sources.uploads import RECORD, Uploads, unchanged_for, uploads_errors
from ascribe.store.remote import Remote, open_remote

UNUSED_SECONDS = 7 * 86400
"""A copy that nobody read for so long is removed."""


def open_uploads(settings: Settings) -> Uploads:
    """Where the settings say that uploads are."""
    remote = open_remote(settings)
    return Uploads(settings) if remote is None else SharedUploads(settings, remote)


class SharedUploads(Uploads):
    """Every method raises StorageFailed when the shared store fails."""

    def __init__(self, settings: Settings, remote: Remote) -> None:
        super().__init__(settings)
        self._remote = remote

    def file(self, dataset_id: str) -> DataFile | None:
        """The rows of a dataset, fetched and verified where they are not here yet; None where there is none."""
        folder = self._folder(dataset_id)
        with uploads_errors():
            record = self.record(dataset_id)
            if record is None:
                super().delete(dataset_id)  # a copy of what was deleted by way of another machine
                return None
            format_ = json.loads(record)["format"]
            file = DataFile(folder / f"rows.{format_}", format_)
            if not file.path.is_file():
                self._fetch(dataset_id, file.path.name)
            os.utime(folder)
        return file

    def record(self, dataset_id: str) -> bytes | None:
        record = self._remote.read(_name(dataset_id, RECORD))
        if record is None and (record := super().record(dataset_id)) is not None:
            self._publish(self._folder(dataset_id), dataset_id, record)
        return record

    def keep(self, incoming: Path, dataset_id: str, record: bytes) -> bool:
        if self.record(dataset_id) is not None:
            return False
        self._publish(incoming, dataset_id, record)
        self._place(incoming, dataset_id)
        return True

    def delete(self, dataset_id: str) -> bool:
        found = self.record(dataset_id) is not None
        self._remote.delete(_name(dataset_id, RECORD))
        for name, _ in list(self._remote.names(_name(dataset_id, ""))):
            self._remote.delete(name)
        super().delete(dataset_id)
        return found

    def _publish(self, folder: Path, dataset_id: str, record: bytes) -> None:
        """From the folder into the shared store; the folder is a copy then."""
        (rows,) = folder.glob("rows.*")
        self._remote.put(rows, _name(dataset_id, rows.name))
        (folder / RECORD).write_bytes(record)
        self._remote.put(folder / RECORD, _name(dataset_id, RECORD))
        (folder / RECORD).unlink(missing_ok=True)

    def _fetch(self, dataset_id: str, name: str) -> None:
        with self.incoming() as folder:
            path = folder / name
            if not self._remote.get(_name(dataset_id, name), path):
                raise StorageFailed("the rows of an uploaded dataset are not in the shared store: upload it again")
            if file_sha256(path) != dataset_id.removeprefix("ds_"):
                raise StorageFailed(
                    "an uploaded dataset in the shared store is not what was uploaded: delete it and upload it again"
                )
            if not self._place(folder, dataset_id) and not (self._folder(dataset_id) / name).is_file():
                super().delete(dataset_id)  # the same bytes, once uploaded as another format
                self._place(folder, dataset_id)

    def _sweep(self) -> None:
        super()._sweep()
        for folder in self._root.glob("[!.]*"):
            if not (folder / RECORD).exists() and unchanged_for(folder, UNUSED_SECONDS):
                shutil.rmtree(folder, ignore_errors=True)


def _name(dataset_id: str, file: str) -> str:
    return f"uploads/{dataset_id.removeprefix('ds_')}/{file}"
