"""Where a dataset's file is: below the data root by path, or among the uploads by id."""

from __future__ import annotations

from pathlib import PurePosixPath

from ascribe.errors import InvalidInput
from ascribe.settings import Settings
from ascribe.sources.limits import ReadLimits
from ascribe.sources.paths import resolve
from ascribe.sources.reading import DataFile, Format
from ascribe.sources.shared_uploads import open_uploads
from ascribe.spec import DatasetSource, FileSource

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


def check_there(settings: Settings, source: FileSource | DatasetSource, pointer: str) -> None:
    """Raises what :func:`locate` would, and fetches nothing."""
    if isinstance(source, DatasetSource):
        if open_uploads(settings).record(source.id) is None:
            raise _unknown(pointer)
    else:
        locate(settings, source, pointer)


def locate(settings: Settings, source: FileSource | DatasetSource, pointer: str) -> DataFile:
    """The file behind ``source``, not opened; ``pointer`` is the source's (``/train/source``).

    Raises:
        InvalidInput: nothing there, not a file, outside the data root, or of a format that nothing says.
        LimitExceeded: larger than any file that is read.
        StorageFailed: the store that machines share fails, or its copy of the dataset is damaged.
    """
    if isinstance(source, DatasetSource):
        file = open_uploads(settings).file(source.id)
        if file is None:
            raise _unknown(pointer)
        return file
    path = resolve(settings.data_root, source.path, f"{pointer}/path")
    if not path.is_file():
        raise InvalidInput.at(f"{pointer}/path", "not_a_file", "must be a file of rows")
    ReadLimits.of(settings).check_file_bytes(path.stat().st_size, f"{pointer}/path")
    return DataFile(path, source.format or _format_of(source.path, f"{pointer}/format"))


def _unknown(pointer: str) -> InvalidInput:
    return InvalidInput.at(f"{pointer}/id", "not_found", "there is no uploaded dataset with this id")


def _format_of(path: str, pointer: str) -> Format:
    name = PurePosixPath(path.lower().removesuffix(".gz"))
    if name.suffix not in SUFFIXES:
        message = f"the file's name ends in none of {', '.join(SUFFIXES)}: say which format it has"
        raise InvalidInput.at(pointer, "unknown_format", message)
    return SUFFIXES[name.suffix]
