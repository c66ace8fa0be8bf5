"""The end of a Parquet file, which says where everything in it is: with its checksum the manifest vouches for it.

The pages have checksums of their own, so that a part of the file can be trusted without the rest.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO

from ascribe.errors import ResultDamaged

_MAGIC = b"PAR1"


def footer_sha256(file: IO[bytes]) -> str:
    """Raises ResultDamaged: it has no such end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 8, 0))
    ending = file.read(8)
    length = int.from_bytes(ending[:4], "little") + 8
    if ending[4:] != _MAGIC or length > size:
        raise damaged()
    file.seek(size - length)
    return hashlib.sha256(file.read(length)).hexdigest()


def damaged() -> ResultDamaged:
    return ResultDamaged(
        "The stored scores of this job are not what was written, so none of them are shown: submit the job again, its "
        "gradients are cached."
    )
