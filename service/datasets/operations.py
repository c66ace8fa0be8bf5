"""The rules of uploads: bytes to disk while they come, read once in the confined reader, kept whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from ascribe.errors import Conflict, NotFound
from ascribe.settings import ServiceSettings
from ascribe.sources.confined import describe_confined
from ascribe.sources.limits import ReadLimits
from ascribe.sources.reading import DataFile, Format
from ascribe.sources.shared_uploads import open_uploads
from ascribe.sources.uploads import Uploads, uploads_errors
from service.datasets.schemas import Dataset


async def receive(body: AsyncIterator[bytes], format_: Format, settings: ServiceSettings) -> tuple[Dataset, bool]:
    """The dataset of these bytes, and whether it is new.

    Raises:
        InvalidInput: the bytes are no whole file of this format; pointers such as ``/rows/123``. Nothing is kept.
        Conflict: the same bytes are there as another format.
        StorageFailed: the disk or the shared store refuses them.
    """
    uploads = open_uploads(settings)
    with uploads_errors(), uploads.incoming() as folder:
        file = DataFile(folder / f"rows.{format_}", format_)
        dataset_id = f"ds_{await _write(body, file.path)}"
        return await run_in_threadpool(_keep, uploads, folder, file, dataset_id, ReadLimits.of(settings))


def get(dataset_id: str, settings: ServiceSettings) -> Dataset:
    """Raises NotFound."""
    dataset = _find(open_uploads(settings), dataset_id)
    if dataset is None:
        raise NotFound("There is no uploaded dataset with this id.")
    return dataset


def delete(dataset_id: str, settings: ServiceSettings) -> None:
    """Raises NotFound."""
    with uploads_errors():
        if not open_uploads(settings).delete(dataset_id):
            raise NotFound("There is no uploaded dataset with this id.")


async def _write(body: AsyncIterator[bytes], path: Path) -> str:
    """The bytes' sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        async for chunk in body:
            await run_in_threadpool(take, chunk)
    return digest.hexdigest()


def _keep(uploads: Uploads, folder: Path, file: DataFile, dataset_id: str, limits: ReadLimits) -> tuple[Dataset, bool]:
    known = _find(uploads, dataset_id)
    if known is None:
        description = describe_confined(file, limits)
        dataset = Dataset(
            id=dataset_id,
            format=file.format,
            bytes=file.path.stat().st_size,
            rows=description.rows,
            columns=description.columns,
            created_at=datetime.now(UTC),
        )
        if uploads.keep(folder, dataset_id, dataset.model_dump_json().encode()):
            return dataset, True
        known = _find(uploads, dataset_id)  # another upload of the same bytes was faster
        assert known is not None
    if known.format != file.format:
        raise Conflict(f"These bytes are there already as {known.format}: delete that dataset first.")
    return known, False


def _find(uploads: Uploads, dataset_id: str) -> Dataset | None:
    record = uploads.record(dataset_id)
    return None if record is None else Dataset.model_validate_json(record)
