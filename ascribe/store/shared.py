"""What the shared store holds of the cache: listed and removed by entry, as the folder of one machine is.

Nothing is pinned there: a job has a copy of what it reads, and computes again what went away before it came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ascribe.store.files import CACHE
from ascribe.store.remote import Remote, RemoteFile
from ascribe.store.store import Entry


def shared_entries(remote: Remote) -> list[Entry]:
    """Every entry, the one first whose last file is the oldest: the store does not know who reads.

    Raises:
        StorageFailed: the store cannot be read.
    """
    found: dict[tuple[str, str], list[RemoteFile]] = defaultdict(list)
    for file in remote.files(CACHE):
        _, kind, key, _ = file.name.split("/", 3)
        found[kind, key].append(file)
    entries = [
        Entry(kind, key, sum(file.bytes for file in files), max(file.modified_at for file in files), pinned=False)
        for (kind, key), files in found.items()
    ]
    return sorted(entries, key=lambda entry: entry.used_at)


def remove_shared(remote: Remote, entry: Entry) -> None:
    """Sidecars first, so that nothing is promised that is not there.

    Raises:
        StorageFailed: the store cannot be changed.
    """
    for name in sorted(_names(remote, entry), key=lambda name: not name.endswith(".json")):
        remote.delete(name)


def _names(remote: Remote, entry: Entry) -> Iterator[str]:
    return (name for name, _ in remote.names(f"{CACHE}/{entry.kind}/{entry.key}"))
