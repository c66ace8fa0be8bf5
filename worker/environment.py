"""What a worker process brings to every job: settings, versions, the warm model. Imports no torch."""

from __future__ import annotations

import os
import platform
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from ascribe.fingerprint import fingerprint
from ascribe.ledger.base import WorkerInfo
from ascribe.settings import WorkerSettings

IDENTITY = ".identity"
"""In a cache directory: the file that says which one it is."""
PACKAGES = ("ascribe", "torch", "transformers", "peft", "tokenizers", "safetensors")


class OtherInputs(Exception):
    """A part of a job means nothing here: the files or rows here are not those that the part was named after."""


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def worker_name(pid: int | None = None) -> str:
    """Of this process, or of another one on this machine."""
    return f"{socket.gethostname()}-{pid or os.getpid()}"


def worker_info(settings: WorkerSettings) -> WorkerInfo:
    """How this worker presents itself, so that a dry run can tell which gradients it would find."""
    return WorkerInfo(
        worker=worker_name(),
        queue=settings.queue,
        versions=versions(),
        attention=settings.attention,
        token_budget=settings.token_budget,
        shard_rows=settings.shard_rows,
        device=settings.device,
        environment=environment_key(settings),
    )


def environment_key(settings: WorkerSettings) -> str:
    """Fingerprint of all that must be equal for equal bits: workers with the same one can share a job's work.

    The store is a part of it: what one of them computes must be where the others look.
    """
    return fingerprint(
        {
            "versions": versions(),
            "device": settings.device,
            "attention": settings.attention,
            "token_budget": settings.token_budget,
            "shard_rows": settings.shard_rows,
            "threads": settings.threads,
            "processor": _processor(),
            "store": settings.store_url or _identity(settings.cache_dir),
        }
    )


def differences(mine: WorkerInfo, workers: Iterable[WorkerInfo]) -> list[str]:
    """In what the live workers that cannot share work with this one differ from it."""
    found = set()
    for other in workers:
        if other.environment != mine.environment:
            pairs = _shown(mine).items() ^ _shown(other).items()
            found |= {name for name, _ in pairs} or {"processor, threads or store"}
    return sorted(found)


def _shown(info: WorkerInfo) -> dict[str, object]:
    settings = {name: getattr(info, name) for name in ("attention", "token_budget", "shard_rows", "device")}
    return {**settings, **info.versions}


def _processor() -> str:
    """What decides which instructions the numerics take: libraries look at the same when they are loaded."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    first = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return " ".join(first.get(name, "") for name in ("model name", "flags", "Features", "CPU part"))


def _identity(folder: Path) -> str:
    """A name that the folder itself carries, so that workers know whether theirs are one, on whatever machine.

    A worker whose folder cannot carry one shares with nobody.
    """
    name, given = folder / IDENTITY, uuid4().hex
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), tempfile.NamedTemporaryFile("w", dir=folder, prefix=f"{IDENTITY}-") as file:
            file.write(given)
            file.flush()
            os.link(file.name, name)
        return name.read_text()
    except OSError:
        return given
