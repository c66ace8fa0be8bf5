"""A file system of fsspec's that fails as it is told to: an object store in a folder, under the scheme ``flaky``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Flaky(LocalFileSystem):  # type: ignore[misc]  # fsspec has no annotations
    """``trouble``: by method, what its next calls do: raise an error, or lose so many bytes of what they move."""

    protocol = ("flaky",)
    local_file = False
    trouble: ClassVar[dict[str, list[Exception | int]]] = {}
    calls: ClassVar[list[str]] = []

    def __init__(self, **options: Any) -> None:
        super().__init__(auto_mkdir=True, **options)

    def put_file(self, path1: str, path2: str, **options: Any) -> None:
        lost = self._suffer("put_file")
        super().put_file(path1, path2, **options)
        _cut(path2, lost)

    def get_file(self, path1: str, path2: str, **options: Any) -> None:
        lost = self._suffer("get_file")
        super().get_file(path1, path2, **options)
        _cut(path2, lost)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        lost = self._suffer("cat_file")
        data: bytes = super().cat_file(path, start=start, end=end, **options)
        return data[: len(data) - lost]

    def _suffer(self, method: str) -> int:
        self.calls.append(method)
        planned = self.trouble.get(method)
        what = planned.pop(0) if planned else 0
        if isinstance(what, Exception):
            raise what
        return what


fsspec.register_implementation("flaky", Flaky)


@contextmanager
def trouble(**planned: list[Exception | int]) -> Iterator[list[str]]:
    """What the next calls meet with; yields the names of the methods called."""
    Flaky.calls.clear()
    Flaky.trouble.update(planned)
    try:
        yield Flaky.calls
    finally:
        Flaky.trouble.clear()


def _cut(path: str, lost: int) -> None:
    if lost:
        with Path(path).open("rb+") as file:
            file.truncate(file.seek(0, 2) - lost)
