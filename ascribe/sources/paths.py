"""Paths of a spec, resolved below the data root and nowhere else."""

from __future__ import annotations

from pathlib import Path

from ascribe.errors import InvalidInput


def resolve(root: Path, relative: str, pointer: str) -> Path:
    """The existing file or folder ``relative`` below ``root``, links followed.

    Raises:
        InvalidInput: ``path_outside_root`` where it (or a link on the way) leads out of the root,
            ``not_found`` where nothing is there. The path itself is not repeated.
    """
    real_root = root.resolve()
    try:
        path = (real_root / relative).resolve()
        exists = path.exists()
    except (OSError, ValueError):  # a name too long, a loop of links, a NUL
        exists = False
        path = real_root
    if not path.is_relative_to(real_root):
        raise InvalidInput.at(pointer, "path_outside_root", "the path leads out of the data root")
    if not exists:
        raise InvalidInput.at(pointer, "not_found", "nothing at this path below the data root")
    return path
