"""Tensors on disk: safetensors' words for what went wrong, as the operating system's."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ascribe import store

_OS_ERROR = re.compile(r"os error (\d+)")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file. Wrap it in ``Files.save`` to have it renamed into place with a checksum."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


@contextmanager
def storage_errors() -> Iterator[None]:
    """What goes wrong with a file of tensors, as StorageFailed."""
    with store.storage_errors():
        try:
            yield
        except SafetensorError as error:
            number = _OS_ERROR.search(str(error))
            raise OSError(int(number[1]) if number else errno.EIO, "a file of tensors") from error
