"""What a worker process brings to every job: settings, versions, the warm model. Imports no torch."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import version

from ascribe.fingerprint import fingerprint
from ascribe.ledger.base import WorkerInfo
from ascribe.settings import WorkerSettings

PACKAGES = ("ascribe", "torch", "transformers", "peft", "tokenizers", "safetensors")


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
    """Fingerprint of all that must be equal for equal bits: workers with the same one can share a job's work."""
    return fingerprint(
        {
            "versions": versions(),
            "device": settings.device,
            "attention": settings.attention,
            "token_budget": settings.token_budget,
            "shard_rows": settings.shard_rows,
        }
    )
