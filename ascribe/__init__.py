"""Ascribe: which training examples made this model behave like that, and by how much?

``ascribe.Client``, ``ascribe.AsyncClient`` and the errors of :mod:`ascribe.client.errors` are what a user imports.
They are loaded on first use, so that the service and the worker, which read only the spec and the ledger, never pay
for an HTTP client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ascribe.client import AsyncClient, Client
    from ascribe.client.errors import ClientError
    from ascribe.spec import JobSpec

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "ClientError", "JobSpec", "__version__"]

_HOMES = {
    "AsyncClient": "ascribe.client",
    "Client": "ascribe.client",
    "ClientError": "ascribe.client.errors",
    "JobSpec": "ascribe.spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ascribe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
